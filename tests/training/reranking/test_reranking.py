"""Re-ranking: the cached reading equals the plain one, every candidate counts, and the weight comes from validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.small_runs import small_recipe
from training.reranking.fusion import best_items, choose_weight, fuse, measure, oracle
from training.reranking.model import Reranker, RerankModel, Sounds
from training.reranking.prompts import answers
from training.tasks.retrieval import assemble

TEXTS = ["a dog barks", "rain", "a much longer caption about a train that leaves a station"]


@pytest.fixture(scope="module")
def model() -> RerankModel:
    retriever, _ = assemble(small_recipe(TINY), [*TEXTS, "Yes", "No"])
    return RerankModel(retriever.audio, retriever.text).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sounds(model: RerankModel) -> Sounds:
    torch.manual_seed(3)
    features, frames = torch.randn(4, 3, 80, 100), torch.tensor([[100, 100, 30], [100, 0, 0], [12, 0, 0], [100, 50, 0]])
    with torch.no_grad():
        return model.listen(features, frames)


@torch.no_grad()
def plainly(model: RerankModel, sounds: Sounds, texts: list[str], by_audio: bool) -> torch.Tensor:
    before, after = model.prompts(texts, [by_audio] * len(texts))
    masks = before["attention_mask"].bool(), after["attention_mask"].bool()
    return model.probability(model(sounds, before["input_ids"], masks[0], after["input_ids"], masks[1]))


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_candidates_behind_a_shared_prefix_score_as_alone(model: RerankModel, sounds: Sounds, batch: int) -> None:
    reranker = Reranker(model, batch)
    for number in range(len(sounds.heard)):
        one = sounds.take([number])
        expected = torch.cat([plainly(model, one, [text], True) for text in TEXTS])
        torch.testing.assert_close(reranker.captions(one, TEXTS), expected, rtol=1e-5, atol=1e-6)
    for text in TEXTS:
        expected = torch.cat([plainly(model, sounds.take([n]), [text], False) for n in range(len(sounds.heard))])
        torch.testing.assert_close(reranker.sounds(text, sounds), expected, rtol=1e-5, atol=1e-6)


def test_pairs_in_a_batch_score_as_alone(model: RerankModel, sounds: Sounds) -> None:
    together = plainly(model, sounds.take([0, 1, 2]), TEXTS, True)
    alone = torch.cat([plainly(model, sounds.take([n]), [TEXTS[n]], True) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_answers_that_are_spelled_alike_are_refused() -> None:
    def alike(word: str, add_special_tokens: bool) -> dict[str, Any]:
        return {"input_ids": [7]}

    with pytest.raises(InputError, match="does not tell Yes from No"):
        answers(alike)


def drawn(seed: int, queries: int, items: int) -> tuple[np.ndarray[Any, Any], ...]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(queries, items)).astype(np.float32)
    relevant = rng.random((queries, items)) < 0.2
    relevant[:, 0] = True
    return scores, relevant


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 12), st.integers(1, 14), st.sampled_from([0.1, 3.0]))
def test_every_candidate_gets_its_probability_and_nothing_else_does(
    seed: int, queries: int, items: int, count: int, weight: float
) -> None:
    scores, _ = drawn(seed, queries, items)
    candidates = best_items(scores, count)
    assert candidates.shape == (queries, min(count, items))
    probabilities = np.random.default_rng(seed).random(candidates.shape).astype(np.float32)
    gain = fuse(scores, candidates, probabilities, weight) - scores
    for query in range(queries):
        expected = np.zeros(items)
        expected[candidates[query]] = weight * probabilities[query]
        np.testing.assert_allclose(gain[query], expected, atol=1e-5)


def test_a_re_ranker_that_always_says_yes_changes_no_rank() -> None:
    """Where only true pairs gained the probability, as in the published code, it would look perfect."""
    scores, relevant = drawn(5, 40, 30)
    candidates = best_items(scores, 10)
    always = np.ones(candidates.shape, np.float32)
    first = measure(scores, relevant)
    fused = measure(fuse(scores, candidates, always, 2.0), relevant)
    assert fused == first
    assert measure(oracle(scores, candidates, relevant), relevant)["R@1"] > first["R@1"]


def test_the_weight_is_the_best_of_a_validation_split() -> None:
    scores, relevant = drawn(9, 60, 30)
    candidates = best_items(scores, 10)
    right = np.take_along_axis(relevant, candidates, 1).astype(np.float32)
    assert choose_weight(scores, candidates, right, relevant, "mAP@10") > 0
    wrong = 1 - right
    assert choose_weight(scores, candidates, wrong, relevant, "mAP@10") == 0.0
