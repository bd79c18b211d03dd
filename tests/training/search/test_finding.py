from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.search.indexes import ATTENTION, SHORT, indexed, untrained
from training.evaluation.whole_clips import encode_build
from training.models.retriever import Retriever
from training.search.entries import Filter
from training.search.finding import AWAY, Finder, Query
from training.search.models import WholeModel
from training.search.store import SoundIndex

RETRIEVERS: dict[str, Retriever] = {}  # of the finders
HUM, HISS = Query(("a low hum",)), Query(("some hiss",))


@pytest.fixture(scope="module")
def manifest(build: Path) -> Manifest:
    return Manifest.open(build)


@pytest.fixture(scope="module")
def finders(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finder]:
    """Finders of whole clips by a dual encoder and by token attention, and of short windows by the dual encoder.

    Whole clips last up to 3 s, as long as the model hears.
    """
    found = {}
    for name, overrides, windows in (("dual", [], None), ("attention", ATTENTION, None), ("short", [], SHORT)):
        retriever, folder = untrained([*overrides, "data.crop_s=3.0"]), tmp_path_factory.mktemp(name)
        indexed(retriever, manifest, folder, windows=windows)
        index = SoundIndex.open(folder)
        found[name] = Finder(index, WholeModel(index, retriever))
        RETRIEVERS[name] = retriever
    return found


def exact(retriever: Retriever, manifest: Manifest, text: str) -> dict[str, float]:
    """The score of every clip for a text, as the model gives it."""
    index = encode_build(retriever, manifest)
    scores = retriever.score(retriever.encode_texts([text]), index.sides)[0]
    return dict(zip(index.clips, scores.tolist(), strict=True))


@pytest.mark.parametrize("name", ["dual", "attention"])
def test_the_order_is_that_of_the_models_own_scores(name: str, finders: dict[str, Finder], manifest: Manifest) -> None:
    finder = finders[name]
    wanted = exact(RETRIEVERS[name], manifest, "a low hum")
    hits = finder.find(HUM, top=33, candidates=33)
    assert len(hits) == 33
    for hit in hits:
        assert hit.score == pytest.approx(wanted[hit.facts["clip_id"]], abs=1e-4)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    short = finder.find(HUM, top=3, candidates=5)
    assert all(hit.score == pytest.approx(wanted[hit.facts["clip_id"]], abs=1e-4) for hit in short)


@pytest.mark.parametrize("name", ["dual", "attention"])
def test_what_should_not_be_heard_is_taken_away(name: str, finders: dict[str, Finder], manifest: Manifest) -> None:
    finder = finders[name]
    hum, hiss = (exact(RETRIEVERS[name], manifest, text) for text in ("a low hum", "some hiss"))
    hits = finder.find(Query(("a low hum",), without=("some hiss",)), top=33)
    for hit in hits:
        clip = hit.facts["clip_id"]
        assert hit.score == pytest.approx(hum[clip] - AWAY * hiss[clip], abs=1e-4)


@pytest.mark.parametrize("name", ["dual", "attention"])
def test_a_sound_finds_itself_first(name: str, finders: dict[str, Finder], manifest: Manifest) -> None:
    finder = finders[name]
    entry = finder.index.entries.slice(5, 1).to_pylist()[0]
    data = manifest.storage.read(f"shards/{entry['shard']}", entry["audio_offset"], entry["audio_bytes"])
    vector = finder.sound_vector(data, "x")
    hit = finder.find(Query(sounds=(vector,)), top=1)[0]
    assert hit.facts["key"] == entry["key"] and hit.score == pytest.approx(1.0, abs=1e-3)
    again = finder.find(Query(sounds=(finder.entry_vector(5),)), top=1)[0]
    assert again.row == 5 and again.score == pytest.approx(1.0, abs=1e-5)


def test_a_query_of_text_and_sound_weighs_both_equally(finders: dict[str, Finder], manifest: Manifest) -> None:
    finder = finders["dual"]
    hum, vector = exact(RETRIEVERS["dual"], manifest, "a low hum"), finder.entry_vector(7)
    for hit in finder.find(Query(("a low hum",), (vector,)), top=5):
        own = float(np.dot(finder.index.vectors[hit.row], vector))
        assert hit.score == pytest.approx((hum[hit.facts["clip_id"]] + own) / 2, abs=1e-5)


def test_filters_leave_only_what_they_allow(finders: dict[str, Finder]) -> None:
    hits = finders["short"].find(HUM, top=50, among=Filter(datasets=("clotho/evaluation",), least_s=2.0))
    assert hits and {hit.facts["split"] for hit in hits} == {"evaluation"}
    assert min(hit.facts["recording_s"] for hit in hits) >= 2.0
    with pytest.raises(InputError, match="no such licence"):
        finders["short"].find(HUM, among=Filter(licences=("CC0",)))


def test_hits_of_a_recording_do_not_overlap_and_name_their_place(finders: dict[str, Finder]) -> None:
    hits = finders["short"].find(HISS, top=40)
    places: dict[str, list[tuple[float, float]]] = {}
    for hit in hits:
        assert 0 <= hit.start_s < hit.end_s <= hit.facts["recording_s"] + 1e-6
        places.setdefault(hit.facts["clip_id"], []).append((hit.start_s, hit.end_s))
    for spans in places.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_a_finder_refuses_another_model_and_empty_queries(finders: dict[str, Finder]) -> None:
    with pytest.raises(InputError, match="made with another model"):
        WholeModel(finders["dual"].index, untrained([], seed=1))
    with pytest.raises(InputError, match="nothing to look for"):
        Query(without=("hiss",))
    with pytest.raises(InputError, match="has no words \\(found '  '\\)"):
        Query(("hum", "  "))
    with pytest.raises(InputError, match="--top must be at least 1 \\(found 0\\)"):
        finders["dual"].find(HUM, top=0)
    with pytest.raises(InputError, match="no such entry"):
        finders["dual"].entry_vector(10_000)


def sound_file(wave: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format="WAV")
    return buffer.getvalue()


def test_what_is_no_sound_is_refused_by_name(finders: dict[str, Finder]) -> None:
    for data in (b"<html>", b"", sound_file(np.zeros(0), 44100)):
        with pytest.raises(InputError, match=r"page\.wav"):
            finders["dual"].sound_vector(data, "page.wav")


def test_a_sound_of_any_rate_and_length_is_heard(finders: dict[str, Finder]) -> None:
    wave = np.sin(np.arange(44100 * 8) / 20).astype(np.float32)
    long, shorter = (finders["dual"].sound_vector(sound_file(w, 44100), "x") for w in (wave, wave[: 44100 * 5]))
    np.testing.assert_allclose(long, shorter, atol=1e-3)  # both are longer than the model hears
    assert np.isfinite(finders["dual"].sound_vector(sound_file(wave[:1], 8000), "x")).all()
