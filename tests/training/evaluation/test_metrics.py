from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.evaluation.metrics import (
    Ranks,
    chance_average_precision,
    chance_recall,
    metrics,
    rank_relevant,
)


@st.composite
def problems(draw: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores full of ties, relevance with one or more hits a row, item ids in any order."""
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 25))
    scores = draw(arrays(np.float64, (queries, items), elements=st.integers(0, 6).map(float)))
    relevant = draw(arrays(bool, (queries, items)))
    for row in relevant:
        row[draw(st.integers(0, items - 1))] = True
    ids = draw(st.permutations([f"item {number:03d}" for number in range(items)]))
    return scores, relevant, ids


def slow(scores: np.ndarray, relevant: np.ndarray, ids: list[str], rule: str) -> dict[str, float]:
    """The definitions, one query at a time, with lists and exact fractions."""
    sums: dict[str, Fraction] = {}
    for row, wanted in zip(scores, relevant, strict=True):
        after = {"stable": ids, "pessimistic": wanted.tolist(), "optimistic": (~wanted).tolist()}[rule]
        hits = [bool(hit) for _, _, hit in sorted(zip(-row, after, wanted, strict=True), key=lambda item: item[:2])]
        for k in (1, 5, 10):
            sums[f"R@{k}"] = sums.get(f"R@{k}", Fraction(0)) + any(hits[:k])
        for k in (10, 16):
            found = [Fraction(sum(hits[: i + 1]), i + 1) for i, hit in enumerate(hits[:k]) if hit]
            sums[f"mAP@{k}"] = sums.get(f"mAP@{k}", Fraction(0)) + sum(found, Fraction(0)) / sum(hits)
    return {name: float(value / len(scores)) for name, value in sums.items()}


@settings(max_examples=150, deadline=None)
@given(problems())
def test_metrics_are_their_definitions(problem: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    scores, relevant, ids = problem
    found = metrics(rank_relevant(scores, relevant, ids))
    for rule, prefix in (("stable", ""), ("pessimistic", "pessimistic_"), ("optimistic", "optimistic_")):
        for name, value in slow(scores, relevant, ids, rule).items():
            assert found[prefix + name] == pytest.approx(value, abs=1e-12), (rule, name)


@settings(max_examples=60, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order_of_items_or_blocks(
    problem: tuple[np.ndarray, np.ndarray, list[str]], random: Any
) -> None:
    scores, relevant, ids = problem
    whole = metrics(rank_relevant(scores, relevant, ids))
    order = list(range(len(ids)))
    random.shuffle(order)
    assert metrics(rank_relevant(scores[:, order], relevant[:, order], [ids[i] for i in order])) == whole
    cut = random.randint(0, len(scores))
    parts = [rank_relevant(scores[s], relevant[s], ids) for s in (slice(0, cut), slice(cut, None))]
    assert metrics(Ranks.concatenate(parts)) == pytest.approx(whole)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_ties_lie_between_their_bounds(problem: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    found = metrics(rank_relevant(*problem))
    for name in ("R@1", "R@5", "R@10", "mAP@10", "mAP@16"):
        assert found["pessimistic_" + name] <= found[name] + 1e-12 <= found["optimistic_" + name] + 2e-12


@pytest.mark.parametrize(("items", "count"), [(1, 1), (4, 1), (5, 2), (6, 3), (6, 6)])
@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_chance_is_the_mean_over_all_orders(items: int, count: int, k: int) -> None:
    recall, precision = [], []
    for places in itertools.combinations(range(1, items + 1), count):
        recall.append(float(places[0] <= k))
        precision.append(sum(i / place for i, place in enumerate(places, 1) if place <= k) / count)
    sizes = np.array([count])
    assert chance_recall(sizes, items, k)[0] == pytest.approx(np.mean(recall))
    assert chance_average_precision(sizes, items, k)[0] == pytest.approx(np.mean(precision))


def test_one_relevant_item_is_the_reciprocal_rank() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6]] * 4)
    found = metrics(rank_relevant(scores, np.eye(4, dtype=bool), range(4)))
    assert found["mAP@10"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["R@1"] == 0.25


def test_average_precision_divides_by_all_relevant_items() -> None:
    # 20 relevant of 20: the first 10 places are hits of precision 1, and 10 relevant items are not among them
    found = metrics(rank_relevant(np.zeros((1, 20)), np.ones((1, 20), bool), range(20)))
    assert found["mAP@10"] == pytest.approx(0.5)
    assert found["mAP@16"] == pytest.approx(0.8)


def test_nan_is_the_worst_score() -> None:
    found = metrics(rank_relevant([[np.nan, -5.0]], [[True, False]], [0, 1]))
    assert found["R@1"] == 0.0
