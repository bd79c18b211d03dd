"""Counting block by block finds what sorting whole matrices finds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.evaluation.test_metrics import Problem, problems
from training.evaluation.counting import ColumnCounter, ColumnScores, Relevant, Ties, comparable, rank_rows


def same(one: Ties, other: Ties) -> None:
    for name in Ties.__dataclass_fields__:
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


@settings(max_examples=80, deadline=None)
@given(problems(most_queries=12), st.randoms(use_true_random=False))
def test_columns_are_ranked_as_the_rows_of_the_transposed_matrix(problem: Problem, random: Any) -> None:
    scores, relevant = comparable(problem[0]), problem[1]
    column, row = np.nonzero(relevant.T)
    pairs = Relevant.of(column, row)
    cuts = sorted({0, len(scores), *(random.randint(0, len(scores)) for _ in range(2))})
    blocks = [(start, scores[start:stop]) for start, stop in itertools.pairwise(cuts)]
    seek = ColumnScores(pairs)
    for first, block in blocks:
        seek.add(first, block)
    counter = ColumnCounter(pairs, seek.values, scores.shape[1])
    for first, block in reversed(blocks):
        counter.add(first, block)
    same(counter.ties(), rank_rows([(0, np.ascontiguousarray(scores.T))], pairs))


def test_a_query_with_many_relevant_items_is_ranked_as_one_with_few() -> None:
    draw = np.random.default_rng(0)
    scores = comparable(draw.integers(0, 50, (3, 200)))
    many = rank_rows([(0, scores)], Relevant.of(np.repeat(np.arange(3), 100), np.tile(np.arange(100), 3)))
    for query in range(3):
        for value in np.unique(scores[query, :100]):
            at = np.flatnonzero((many.query == query) & (many.above == (scores[query] > value).sum()))
            assert many.size[at].tolist() == [(scores[query] == value).sum()]
            assert many.relevant[at].tolist() == [(scores[query, :100] == value).sum()]


def test_a_pair_that_is_named_twice_counts_once_with_its_highest_gain() -> None:
    pairs = Relevant.of([1, 0, 1], [4, 2, 4], [0.5, 1.0, 2.0])
    assert (pairs.query.tolist(), pairs.item.tolist()) == ([0, 1], [2, 4])
    assert pairs.gain is not None and pairs.gain.tolist() == [1.0, 2.0]
