"""The page of an analysis: what it says, and that nothing from the data can act in it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sharding.shards.manifest import Manifest
from tests.training.evaluation.score_folders import questions
from tests.training.small_runs import commit, small_recipe, write_sounds
from training.analysis.attention import attention
from training.analysis.examples import browse
from training.analysis.page import analyse
from training.analysis.spaces import Space, distances, figures, project
from training.models.retriever import Retriever
from training.tasks import collat
from training.tasks.retrieval import assemble

SPLIT = "clotho/evaluation"
ATTENTION = ["head={name: token-attention, dim: 16, heads: 2}"]


@pytest.fixture(autouse=True)
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compiles itself for half a minute when it is imported."""
    monkeypatch.setitem(sys.modules, "umap", None)


def retriever(*overrides: str) -> Retriever:
    recipe = small_recipe(overrides)
    model, loss = assemble(recipe, ["a low hum", "a whistle", "some hiss"])
    return Retriever(model.eval(), loss.eval(), recipe)


@pytest.mark.parametrize("head", [[], ATTENTION], ids=["dual", "attention"])
def test_a_page_has_every_caption_and_opens_by_itself(head: list[str], build: Path, tmp_path: Path) -> None:
    result = analyse(retriever(*head), Manifest.open(build), SPLIT, str(tmp_path / "page.html"), examples=4)
    page = (tmp_path / "page.html").read_text()
    assert page.count('<tr class="entry">') == 18 and page.count("<audio") >= 4 * 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is loaded from elsewhere
    assert set(result["spaces"]) == ({"queries and keys", "queries and values"} if head else {"shared space"})
    assert ("A hiss is heard." in page) and ('class="cells"' in page) == bool(head)
    json.dumps(result)


def test_a_page_of_a_task_that_scores_without_a_head(build: Path, tmp_path: Path) -> None:
    recipe = small_recipe(["task={name: collat, interaction: {blocks: 1, width: 16, heads: 2}}", "head=null"])
    model = collat.blank(recipe, ["a low hum", "a whistle"])
    model.model.eval()
    analyse(model, Manifest.open(build), SPLIT, str(tmp_path / "page.html"), examples=0)
    assert "it scores by <code>collat</code>" in (tmp_path / "page.html").read_text()


def test_captions_cannot_act_in_the_page(tmp_path: Path) -> None:
    write_sounds(tmp_path / "b", clips=2, held_out=6)
    manifest = Manifest.open(tmp_path / "b")
    evil = [{"text": "<script>x()</script>", "kind": "human", "onset": None, "offset": None, "source": None}]
    commit(tmp_path / "b", [row | {"captions": evil} for row in manifest.table.to_pylist()])
    analyse(retriever(), Manifest.open(tmp_path / "b"), SPLIT, str(tmp_path / "page.html"), examples=2)
    assert "<script>x" not in (tmp_path / "page.html").read_text()


def test_the_worst_captions_come_first_with_what_was_preferred() -> None:
    asked = questions(3, 1)
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.3], [0.1, 0.5, 0.4]], np.float32)
    found = browse([(0, scores)], asked)
    assert [query.clip[-3] for query in found] == ["1", "2", "0"]
    assert found[0].margin == pytest.approx(-0.5) and found[0].rank == 2.5 and found[2].rank == 1
    assert found[0].preferred[0] == asked.clips[0]


def test_distances_of_matched_pairs_are_told_from_others() -> None:
    draw = np.random.default_rng(0)
    own = np.repeat(np.arange(40), 5)
    scores = draw.normal(0, 1, (200, 40)).astype(np.float32)
    assert distances(scores, own).test()["p"] > 0.001
    scores[np.arange(200), own] += 2
    found = distances(scores, own)
    assert found.test()["p"] < 1e-16 and found.test()["d"] == pytest.approx(2, abs=0.4)
    edges, matched, mismatched = found.histogram()
    assert (sum(matched), sum(mismatched), len(edges)) == (200, 200, len(matched) + 1)


def test_figures_of_spaces_by_hand() -> None:
    apart = Space("x", torch.tensor([[1.0, 0], [2, 0]]), torch.tensor([[0.0, 3], [0, 1]]))
    assert figures(apart)["gap"] == pytest.approx(2**0.5) and figures(apart)["alignment"] == pytest.approx(2)
    method, texts, sounds = project(apart)
    assert method == "principal components" and abs(texts - sounds).max() == pytest.approx(1)


def test_attention_of_a_caption_sums_to_one_for_each_token() -> None:
    model = retriever(*ATTENTION)
    wave = np.random.default_rng(0).standard_normal(int(2.5 * model.audio_input.rate)) * 0.1
    found = attention(model, "a low hum", model.encode_wave(wave), 2.5)
    assert found is not None and found.weights.sum(1) == pytest.approx(np.ones(len(found.tokens)))
    assert found.times == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    plain = retriever()
    assert attention(plain, "a low hum", plain.encode_wave(wave), 2.5) is None
