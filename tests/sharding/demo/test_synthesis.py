"""The synthesised corpus: what it promises to those who build and train on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.catalogue.table import build_catalogue
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.demo.scenes import make_scene
from sharding.demo.synthesis import synthesise
from sharding.demo.waves import RATE

DATASETS = ("clotho", "audiocaps", "wavcaps", "tacos")


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
    again = tmp_path / "again"
    synthesise(again, seed=3, clips=40)
    files = {path.relative_to(corpus): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    one, other = (make_scene(np.random.default_rng(seed), ("dog", "rain"), 4.0) for seed in (3, 4))
    assert not np.allclose(one.wave, other.wave)


def test_it_replaces_a_corpus_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("x")
    assert main(["demo-corpus", str(tmp_path), "--clips", "40"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").exists()
    with pytest.raises(InputError, match="cannot hold every kind of overlap"):
        synthesise(tmp_path / "new", clips=3)
