"""Batches without kin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.sampling.kinship import kin_repeats, separate_kin


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    batch=st.integers(1, 25),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=150)
def test_kin_are_separated_wherever_batches_suffice(sizes: list[int], batch: int, seed: int) -> None:
    kin = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    kin = kin[: len(kin) // batch * batch]
    order = separate_kin(kin, batch)
    assert sorted(order) == list(range(len(kin)))
    if len(kin) and np.bincount(kin).max() <= len(kin) // batch:
        assert len(kin_repeats(kin[order], batch)) == 0
    assert len(kin_repeats(kin[order], batch)) <= len(kin_repeats(kin, batch))


@given(groups=st.integers(1, 30), batch=st.integers(1, 30), batches=st.integers(1, 20), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=100)
def test_kin_are_repeated_only_where_no_order_avoids_it(groups: int, batch: int, batches: int, seed: int) -> None:
    """With fewer kin than a batch has draws, as many, or more, the number of repeats is the smallest possible."""
    kin = np.random.default_rng(seed).integers(0, groups, batch * batches)
    repeats = len(kin_repeats(kin[separate_kin(kin, batch)], batch))
    assert repeats == np.maximum(np.bincount(kin) - batches, 0).sum()


@pytest.mark.parametrize("groups", [1, 10, 64, 7000])
def test_data_with_few_kin_are_distributed_quickly(groups: int) -> None:
    kin = np.random.default_rng(0).integers(0, groups, 200_000)
    kin[:50_000] = 0
    assert len(kin_repeats(kin[separate_kin(kin, 64)], 64)) == np.maximum(np.bincount(kin) - 3125, 0).sum()
