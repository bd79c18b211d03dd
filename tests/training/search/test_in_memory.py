from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe
from training.models.retriever import Retriever
from training.search.in_memory import EncodedClips, encode_build, search
from training.tasks.retrieval import assemble

ATTENTION = ["head={name: token-attention, dim: 16, heads: 2}"]
QUERIES = ["a low hum", "Some HISS!"]


def untrained(overrides: list[str]) -> Retriever:
    recipe = small_recipe(overrides)
    return Retriever(*assemble(recipe, ["a low hum", "a whistle", "some hiss"]), recipe)


@pytest.fixture(scope="module")
def manifest(build: Path) -> Manifest:
    return Manifest.open(build)


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return untrained([])


@pytest.fixture(scope="module")
def encoded(retriever: Retriever, manifest: Manifest) -> EncodedClips:
    return encode_build(retriever, manifest)


def test_an_index_has_every_clip_of_the_build_or_of_a_split(
    encoded: EncodedClips, retriever: Retriever, manifest: Manifest
) -> None:
    assert sorted(encoded.clips) == sorted(manifest.table["clip_id"].to_pylist())
    part = encode_build(retriever, manifest, "clotho/evaluation")
    assert len(part.clips) == 9
    rows = [encoded.clips.index(clip) for clip in part.clips]
    torch.testing.assert_close(encoded.sides[0][rows], part.sides[0])


def test_results_are_sorted_by_score_and_show_their_clip(
    encoded: EncodedClips, retriever: Retriever, manifest: Manifest
) -> None:
    found = search(retriever, manifest, QUERIES, encoded=encoded, top=5)
    assert list(found) == QUERIES
    by_clip = {row["clip_id"]: row for row in manifest.table.to_pylist()}
    for hits in found.values():
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        for hit in hits:
            row = by_clip[hit["clip_id"]]
            assert (hit["key"], hit["shard"], hit["split"]) == (row["key"], row["shard"], row["split"])
            assert hit["captions"] == [caption["text"] for caption in row["captions"]]


def test_equal_scores_are_ordered_by_clip(encoded: EncodedClips, retriever: Retriever, manifest: Manifest) -> None:
    collapsed = EncodedClips(encoded.clips[::-1], tuple(torch.ones_like(tensor) for tensor in encoded.sides))
    hits = search(retriever, manifest, ["hum"], encoded=collapsed, top=4)["hum"]
    assert [hit["clip_id"] for hit in hits] == sorted(encoded.clips)[:4]


def test_more_clips_than_there_are_show_all(encoded: EncodedClips, retriever: Retriever, manifest: Manifest) -> None:
    assert len(search(retriever, manifest, ["hum"], encoded=encoded, top=1000)["hum"]) == len(encoded.clips)


def test_what_is_shown_was_scored_exactly(manifest: Manifest) -> None:
    retriever = untrained(ATTENTION)
    encoded = encode_build(retriever, manifest, "clotho/evaluation")
    exact = {
        hit["clip_id"]: hit["score"]
        for hit in search(retriever, manifest, ["hum"], encoded=encoded, top=9, candidates=0)["hum"]
    }
    for hit in search(retriever, manifest, ["hum"], encoded=encoded, top=3, candidates=1)["hum"]:
        assert hit["score"] == pytest.approx(exact[hit["clip_id"]], abs=1e-5)


@pytest.mark.parametrize(("top", "candidates"), [(0, 1), (1, -1)])
def test_counts_below_their_least_are_refused(
    top: int, candidates: int, encoded: EncodedClips, retriever: Retriever, manifest: Manifest
) -> None:
    with pytest.raises(InputError, match="top counts from 1"):
        search(retriever, manifest, ["hum"], encoded=encoded, top=top, candidates=candidates)
