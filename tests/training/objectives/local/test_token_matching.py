"""Matching of tokens and predictions: as the paper defines it, and as well as possible."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.objectives.local.token_matching import (
    MATCHINGS,
    difference,
    distances,
    greedy_match,
    matched_difference,
    optimal_match,
)


def plain_greedy(cost: list[list[float]], used: list[bool]) -> list[int]:
    """The definition of section 3.2, one token after the other."""
    free, match = set(range(len(cost[0]))), [0] * len(cost)
    for token in range(len(cost) - 1, -1, -1):
        if used[token]:
            match[token] = min(sorted(free), key=lambda place: cost[token][place])
            free.remove(match[token])
    return match


def plain_optimal(cost: list[list[float]], used: list[bool]) -> float:
    """The smallest sum over all ways to match."""
    rows = [row for row, take in zip(cost, used, strict=True) if take]
    ways = itertools.permutations(range(len(cost[0])), len(rows))
    return min(sum(row[place] for row, place in zip(rows, way, strict=True)) for way in ways)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Costs of few different values, so that ties are common, and which tokens take part."""
    batch, tokens = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    places = draw(st.integers(tokens, 6))
    values = st.integers(0, draw(st.sampled_from([1, 3, 1000])))
    cost = [[[draw(values) for _ in range(places)] for _ in range(tokens)] for _ in range(batch)]
    mask = [[draw(st.booleans()) for _ in range(tokens)] for _ in range(batch)]
    return (
        torch.tensor(cost, dtype=torch.float32).reshape(batch, tokens, places),
        torch.tensor(mask, dtype=torch.bool).reshape(batch, tokens),
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_greedy_match_is_always_that_of_the_definition(problem: tuple[Tensor, Tensor]) -> None:
    cost, mask = problem
    assert greedy_match(cost, mask).tolist() == [
        plain_greedy(rows, used) for rows, used in zip(cost.tolist(), mask.tolist(), strict=True)
    ]


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_optimal_match_is_never_beaten_and_uses_each_prediction_once(problem: tuple[Tensor, Tensor]) -> None:
    cost, mask = problem
    match = optimal_match(cost, mask)
    for costs, used, found in zip(cost.tolist(), mask.tolist(), match.tolist(), strict=True):
        chosen = [place for place, take in zip(found, used, strict=True) if take]
        assert len(set(chosen)) == len(chosen)
        total = sum(costs[token][place] for token, place in enumerate(found) if used[token])
        assert total == plain_optimal(costs, used)


def test_the_right_most_token_chooses_first() -> None:
    text = torch.tensor([[[0.0], [1.0]]])
    predicted = torch.tensor([[[0.9], [5.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert greedy_match(distances(text, predicted), mask).tolist() == [[1, 0]]
    greedy, count = matched_difference(text, mask, predicted, "greedy", "token")
    assert float(greedy) == pytest.approx(0.1 + 5.0) and int(count) == 2
    optimal, _ = matched_difference(text, mask, predicted, "optimal", "token")
    assert float(optimal) == pytest.approx(0.9 + 4.0)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_order_of_predictions_changes_nothing(matching: str) -> None:
    generator = torch.Generator().manual_seed(0)
    text, predicted = (torch.randn(3, n, 4, generator=generator) for n in (5, 7))
    mask = torch.arange(5) < torch.tensor([5, 2, 0])[:, None]
    turned = predicted[:, torch.randperm(7, generator=generator)]
    one, other = (matched_difference(text, mask, each, matching, "sum") for each in (predicted, turned))  # type: ignore[arg-type]
    torch.testing.assert_close(one, other)
    assert int(one[1]) == 3
    _, tokens = matched_difference(text, mask, predicted, matching, "token")  # type: ignore[arg-type]
    _, numbers = matched_difference(text, mask, predicted, matching, "mean")  # type: ignore[arg-type]
    assert (int(tokens), int(numbers)) == (7, 28)


def test_only_matched_predictions_are_pulled_and_text_gets_its_gradient_too() -> None:
    text = torch.tensor([[[0.0, 0.0], [9.0, 9.0]]], requires_grad=True)
    predicted = torch.tensor([[[3.0, 3.0], [1.0, -1.0], [0.5, 0.5]]], requires_grad=True)
    total, _ = matched_difference(text, torch.tensor([[True, False]]), predicted, "greedy", "sum")
    total.backward()
    assert predicted.grad is not None and text.grad is not None
    assert predicted.grad.tolist() == [[[0, 0], [0, 0], [1, 1]]]
    assert text.grad.tolist() == [[[-1, -1], [0, 0]]]


def test_padding_has_no_part_in_a_difference() -> None:
    first, second = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2.0, 3.0], [torch.nan, 0.0, 0.0]]])
    assert float(difference(first, second, torch.tensor([[True, False]]))) == 6
