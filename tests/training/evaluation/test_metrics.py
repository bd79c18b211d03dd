from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.evaluation.counting import Relevant, comparable, rank_relevant, rank_rows
from training.evaluation.metrics import MEASURED, expected_ndcg, metrics

Problem = tuple[np.ndarray, np.ndarray]


@st.composite
def problems(draw: Any, most_queries: int = 6, most_items: int = 25) -> Problem:
    """Scores with many ties, and relevance with one or more relevant items in each row."""
    queries, items = draw(st.integers(1, most_queries)), draw(st.integers(1, most_items))
    scores = draw(arrays(np.float64, (queries, items), elements=st.integers(0, 6).map(float)))
    relevant = draw(arrays(bool, (queries, items)))
    for row in relevant:
        row[draw(st.integers(0, items - 1))] = True
    return scores, relevant


def definition(hits: list[bool], name: str) -> Fraction:
    """A metric of one query, whose items are sorted: whether each is relevant."""
    kind, _, k = name.partition("@")
    if kind == "R":
        return Fraction(any(hits[: int(k)]))
    found = [Fraction(sum(hits[: i + 1]), i + 1) for i, hit in enumerate(hits[: int(k)]) if hit]
    return sum(found, Fraction(0)) / sum(hits)


def ordered(row: np.ndarray, wanted: np.ndarray, key: list[Any]) -> list[bool]:
    return [bool(hit) for _, _, hit in sorted(zip(-row, key, wanted, strict=True), key=lambda item: item[:2])]


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_bounds_of_metrics_have_relevant_items_last_and_first_among_ties(problem: Problem) -> None:
    scores, relevant = problem
    found = metrics(rank_relevant(scores, relevant))
    for name in MEASURED:
        last = [definition(ordered(row, wanted, wanted.tolist()), name) for row, wanted in zip(*problem, strict=True)]
        first = [
            definition(ordered(row, wanted, (~wanted).tolist()), name) for row, wanted in zip(*problem, strict=True)
        ]
        assert found["pessimistic_" + name] == pytest.approx(float(sum(last) / len(last)), abs=1e-12)
        assert found["optimistic_" + name] == pytest.approx(float(sum(first) / len(first)), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(problems(most_queries=2, most_items=5))
def test_a_metric_is_its_mean_over_all_orders_of_equal_scores(problem: Problem) -> None:
    found = metrics(rank_relevant(*problem))
    for name in MEASURED:
        means = []
        for row, wanted in zip(*problem, strict=True):
            orders = itertools.permutations(range(len(row)))
            values = [definition(ordered(row, wanted, list(order)), name) for order in orders]
            means.append(sum(values, Fraction(0)) / len(values))
        assert found[name] == pytest.approx(float(sum(means) / len(means)), abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(problems())
def test_equal_scores_for_all_items_are_chance(problem: Problem) -> None:
    scores, relevant = problem
    found = metrics(rank_relevant(np.zeros_like(scores), relevant))
    for name in MEASURED:
        assert found[name] == pytest.approx(found["chance_" + name], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order_of_items_or_on_blocks_of_queries(problem: Problem, random: Any) -> None:
    scores, relevant = problem
    whole = metrics(rank_relevant(scores, relevant))
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    assert metrics(rank_relevant(scores[:, order], relevant[:, order])) == whole
    cut = random.randint(0, len(scores))
    blocks = [(start, comparable(scores[start:stop])) for start, stop in ((0, cut), (cut, len(scores)))]
    random.shuffle(blocks)
    ties = rank_rows(blocks, Relevant.of(*np.nonzero(relevant)))
    assert metrics(ties.ranking(scores.shape[1])) == whole


@settings(max_examples=60, deadline=None)
@given(problems())
def test_metrics_lie_between_their_bounds(problem: Problem) -> None:
    found = metrics(rank_relevant(*problem))
    for name in MEASURED:
        assert found["pessimistic_" + name] <= found[name] + 1e-12 <= found["optimistic_" + name] + 2e-12


@pytest.mark.parametrize(("items", "count"), [(1, 1), (4, 1), (5, 2), (6, 3), (6, 6)])
def test_chance_is_the_mean_over_all_orders(items: int, count: int) -> None:
    found = metrics(rank_relevant(np.arange(items)[None], (np.arange(items) < count)[None]))
    for name in MEASURED:
        values = []
        for positions in itertools.combinations(range(items), count):
            values.append(float(definition([index in positions for index in range(items)], name)))
        assert found["chance_" + name] == pytest.approx(np.mean(values)), name


def test_one_relevant_item_is_the_reciprocal_rank() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6]] * 4)
    found = metrics(rank_relevant(scores, np.eye(4, dtype=bool)))
    assert found["mAP@10"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["R@1"] == 0.25


def test_average_precision_divides_by_all_relevant_items() -> None:
    # All of 20 items are relevant.  The first 10 have precision 1, and the other 10 are not among them.
    found = metrics(rank_relevant(np.zeros((1, 20)), np.ones((1, 20), bool)))
    assert found["mAP@10"] == pytest.approx(0.5)
    assert found["mAP@16"] == pytest.approx(0.8)


def test_nan_is_the_lowest_score() -> None:
    found = metrics(rank_relevant([[np.nan, -5.0]], [[True, False]]))
    assert found["R@1"] == 0.0


@pytest.mark.parametrize(
    ("scores", "relevant", "message"), [([[1.0]], [[True, False]], "same matrix"), ([[1.0]], [[False]], "needs")]
)
def test_a_query_without_a_relevant_item_is_refused(scores: Any, relevant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_relevant(scores, relevant)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_ndcg_is_that_of_scikit_learn(problem: Problem, k: int, random: Any) -> None:
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    scores, relevant = problem
    gains = relevant * np.array([[random.choice([0.5, 1.0, 3.0]) for _ in row] for row in relevant])
    pairs = Relevant.of(*np.nonzero(relevant), gains[np.nonzero(relevant)])
    ties = rank_rows([(0, comparable(scores))], pairs)
    ideal = [np.sort(row[row > 0])[::-1] for row in gains]
    found = expected_ndcg(ties.ranking(scores.shape[1]), ties.gain, ideal, k)
    if scores.shape[1] > 1:
        assert found.mean() == pytest.approx(ndcg_score(gains, scores, k=k), abs=1e-9)


def test_ndcg_by_hand() -> None:
    # Gains 3 and 1 stand at positions 2 and 3: (3 / log2 3 + 1 / 2) / (3 + 1 / log2 3).
    pairs = Relevant.of([0, 0], [1, 2], [3.0, 1.0])
    ties = rank_rows([(0, comparable([[0.9, 0.5, 0.4]]))], pairs)
    found = expected_ndcg(ties.ranking(3), ties.gain, [np.array([3.0, 1.0])], 10)
    assert found[0] == pytest.approx((3 / np.log2(3) + 0.5) / (3 + 1 / np.log2(3)))
