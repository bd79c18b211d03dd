"""The synthesised corpus: what it promises to those who build and train on it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.catalogue.table import build_catalogue
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.demo.captions import WORDS, Event, distinct, human
from sharding.demo.scenes import make_scene
from sharding.demo.sounds import SOUNDS, sound
from sharding.demo.synthesis import synthesise
from sharding.demo.waves import RATE, samples

DATASETS = ("clotho", "audiocaps", "wavcaps", "tacos")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "corpus"
    synthesise(out, seed=3, clips=40)
    return out


@pytest.fixture(scope="module")
def truth(corpus: Path) -> dict:
    return json.loads((corpus / "truth.json").read_text())


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_finite_audible_and_never_the_same_twice(name: str) -> None:
    waves = [sound(np.random.default_rng(seed), name, 4.0, seed % 2, 3, False) for seed in range(4)]
    for wave in waves:
        assert wave.dtype == np.float32 and len(wave) == samples(4.0)
        assert np.isfinite(wave).all() and 0.02 < np.abs(wave).max() <= 1.001
    assert not np.allclose(waves[0], waves[2])


def test_every_sound_has_words_and_they_name_it_with_the_right_article() -> None:
    assert set(WORDS) == set(SOUNDS)
    rng = np.random.default_rng(0)
    for name in SOUNDS:
        for shade in (0, 1):
            text = human(rng, [Event(name, 0.0, 1.0, shade, 0, False)])
            assert "{" not in text and "  " not in text and text.endswith(".")
            words = text.lower().split()
            for article, word in pairwise(words):
                assert (article, word[0] in "aeiou") not in (("a", True), ("an", False)), text


def test_captions_tell_the_order_of_two_events() -> None:
    rng = np.random.default_rng(1)
    events = [Event("dog", 0.0, 2.0, 0, 1, False), Event("rain", 2.5, 5.0, 0, 0, False)]
    texts = distinct(rng, events, 5)
    assert len(set(texts)) == 5
    reverse = [text for text in texts if text.lower().find("rain") < text.lower().find("dog")]
    assert all("after" in text.lower() for text in reverse)


def test_the_catalogue_has_exactly_the_clips_of_the_truth(corpus: Path, truth: dict) -> None:
    catalogue = build_catalogue({name: str(corpus / name) for name in DATASETS})
    rows = catalogue.table.to_pylist()
    counts = Counter(f"{row['dataset']}/{row['part']}" for row in rows)
    assert counts == truth["clips"]
    known = {row["clip_id"] for row in rows}
    assert set(truth["scenes"]) <= known
    assert {clip for pair in truth["same_recording"] for clip in pair["members"]} <= known
    problems = {row["clip_id"]: row["problem"] for row in rows if row["problem"]}
    planted = {one["clip"]: one["what"] for one in truth["defects"]}
    assert {clip for clip, what in planted.items() if what == "no such file"} == {
        clip for clip, problem in problems.items() if problem == "missing"
    }
    assert list(problems.values()).count("out_of_root") == 1
    assert catalogue.orphans.num_rows == len(truth["orphans"])


def test_identities_and_intervals_survive_the_published_encodings(corpus: Path, truth: dict) -> None:
    rows = {row["clip_id"]: row for row in build_catalogue({"clotho": str(corpus / "clotho")}).table.to_pylist()}
    assert any(row["uploader"] == "Óscar de Ávila" for row in rows.values())
    assert any(row["identity"] is None for row in rows.values())  # `Not found`
    both = next(one for one in truth["same_recording"] if one["kind"].startswith("overlapping excerpts in two"))
    a, b = (rows[clip] for clip in both["members"])
    assert a["identity"] == b["identity"]
    shared = min(a["interval"]["end"], b["interval"]["end"]) - max(a["interval"]["start"], b["interval"]["start"])
    assert shared == pytest.approx(both["overlap_s"], abs=0.01)


def test_every_defect_of_the_published_tables_is_there(corpus: Path, truth: dict) -> None:
    assert b"\r\n" in (corpus / "audiocaps/train.csv").read_bytes()
    assert (corpus / "tacos/metadata.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with pytest.raises(UnicodeDecodeError):
        (corpus / "clotho/clotho_metadata_development.csv").read_text(encoding="utf-8") + (
            corpus / "clotho/clotho_metadata_evaluation.csv"
        ).read_text(encoding="utf-8")
    with (corpus / "audiocaps/train.csv").open(newline="") as file:
        assert any(row["youtube_id"].startswith("-") for row in csv.DictReader(file))
    assert len({one["what"] for one in truth["defects"]}) == 7


def test_an_excerpt_holds_the_sound_of_its_original(corpus: Path, truth: dict) -> None:
    one = next(one for one in truth["same_recording"] if one["kind"] == "excerpt, id known")
    clip, whole = one["members"]
    a, rate_a = sf.read(corpus / "clotho" / f"{clip.removeprefix('clotho/')}.wav")
    b, rate_b = sf.read(corpus / "wavcaps/audio" / f"{whole.removeprefix('wavcaps/')}.flac")
    assert (rate_a, rate_b) == (44100, RATE)
    import soxr

    start = round(one["start_s"] * rate_b)
    a32 = soxr.resample(a, rate_a, rate_b)
    n = min(len(a32), len(b) - start)
    assert np.corrcoef(a32[:n], b[start : start + n])[0, 1] > 0.99


def test_same_seed_same_bytes_and_other_seed_other_sounds(corpus: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    synthesise(again, seed=3, clips=40)
    files = {path.relative_to(corpus): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    synthesise(other, seed=4, clips=40)
    assert (other / "truth.json").read_bytes() != (corpus / "truth.json").read_bytes()


def test_held_out_clips_differ_in_what_sounds() -> None:
    from sharding.demo.corpus import Corpus

    corpus = Corpus(Path("unused"), np.random.default_rng(0))
    pairs = [frozenset(corpus.classes(2)) for _ in range(200)]
    assert len(set(pairs)) == 200


def test_events_of_a_scene_lie_inside_it_and_in_order() -> None:
    scene = make_scene(np.random.default_rng(5), ("dog", "rain", "bell"), 9.0)
    assert np.abs(scene.wave).max() < 0.95
    onsets = [event.onset_s for event in scene.events]
    assert onsets == sorted(onsets) and onsets[0] > 0 and scene.events[-1].offset_s < scene.seconds
    part, start = scene.part(1, 1)
    assert [event.name for event in part.events] == ["rain"]
    assert part.events[0].onset_s == pytest.approx(scene.events[1].onset_s - start)


def test_it_replaces_a_corpus_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("x")
    assert main(["demo-corpus", str(tmp_path), "--clips", "40"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").exists()
    with pytest.raises(InputError, match="small"):
        synthesise(tmp_path / "new", clips=3)
