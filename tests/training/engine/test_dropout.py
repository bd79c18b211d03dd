"""Dropout belongs to the sample: the same in any batch, order, padding and replay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from training.engine.dropout import SampleDropout, replayed

SEEDS = torch.tensor([7, -3, 2**60, 0, 11, 5])


def dropped(x: Tensor, seeds: Tensor, rate: float = 0.3, site: int = 0) -> Tensor:
    with SampleDropout(seeds, site):
        return F.dropout(x, rate, training=True)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_the_rate_and_the_mean_are_kept(rate: float) -> None:
    found = dropped(torch.ones(6, 64, 512), SEEDS, rate)
    assert float((found == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert found.unique().numel() == 2


def test_samples_places_and_elements_are_dropped_independently() -> None:
    ones = torch.ones(6, 64, 512)
    first, second = dropped(ones, SEEDS, 0.5), dropped(ones, SEEDS, 0.5, site=1)
    agree = [(first[0] == first[1]), (first == second), (first[:, :, 1:] == first[:, :, :-1])]
    agree += [(first[:, 1:] == first[:, :-1]), (first[:, :, 4:] == first[:, :, :-4])]
    for same in agree:
        assert float(same.float().mean()) == pytest.approx(0.5, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    length=st.integers(1, 9),
    width=st.integers(1, 9),
    folds=st.integers(1, 3),
)
def test_any_cut_order_and_padding_drops_the_same(rows: list[int], length: int, width: int, folds: int) -> None:
    whole = torch.ones(6, folds, 9, 9)
    part = whole[rows, :, :length, :width]
    expected = dropped(whole.flatten(0, 1), SEEDS).view(6, folds, 9, 9)[rows, :, :length, :width]
    assert torch.equal(dropped(part.flatten(0, 1), SEEDS[rows]).view_as(expected), expected)


def test_attention_drops_its_weights_by_sample() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 6, 2, 5, 8)
    mask = (torch.rand(6, 1, 1, 5) > 0.3).index_fill(3, torch.tensor([0]), True)
    for options in ({"attn_mask": mask}, {"is_causal": True}, {"attn_mask": mask.float(), "scale": 0.2}, {}):
        exact = F.scaled_dot_product_attention(query, key, value, **options)
        with SampleDropout(SEEDS):
            almost = F.scaled_dot_product_attention(query, key, value, dropout_p=1e-9, **options)
            noisy = F.scaled_dot_product_attention(query, key, value, dropout_p=0.5, **options)
        assert torch.allclose(almost, exact, atol=1e-6)
        assert not torch.allclose(noisy, exact, atol=0.1)
    rows = torch.tensor([4, 1])
    with SampleDropout(SEEDS[rows], site=1):
        again = F.scaled_dot_product_attention(query[rows], key[rows], value[rows], dropout_p=0.5)
    assert torch.allclose(again, noisy[rows], atol=1e-6)


def test_a_replay_drops_the_same_and_what_comes_after_goes_on() -> None:
    x = torch.ones(6, 100)

    def block(x: Tensor) -> Tensor:
        return F.dropout(F.dropout(x, 0.2, True), 0.2, True)

    with SampleDropout(SEEDS):
        plain = block(x), F.dropout(x, 0.5, True)
    with SampleDropout(SEEDS):
        recomputed = replayed(block)
        first, after = recomputed(x), F.dropout(x, 0.5, True)
    assert torch.equal(first, plain[0]) and torch.equal(after, plain[1])
    assert torch.equal(recomputed(x), plain[0])
    assert replayed(block) is block  # outside of training there is nothing to replay


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.ones(6, 10)
    with SampleDropout(SEEDS):
        assert F.dropout(x, 0.5, training=False) is x
        assert F.dropout(x, 0.0, training=True) is x
        assert float(F.dropout(x, 1.0, training=True).abs().sum()) == 0
