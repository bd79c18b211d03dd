from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.encoders.randomness import splitmix64, subset

INT64 = st.integers(-(2**63), 2**63 - 1)


def reference(seed: int, counter: int) -> int:
    """The generator's definition in Python's integers: its state advances by the golden ratio, and is then hashed."""
    whole = 2**64 - 1
    x = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & whole
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & whole
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & whole
    x ^= x >> 31
    return x - 2**64 if x >= 2**63 else x


@settings(deadline=None)
@given(INT64, st.integers(0, 2**31))
def test_it_is_splitmix64(seed: int, counter: int) -> None:
    assert splitmix64(torch.tensor(seed), torch.tensor(counter)).item() == reference(seed, counter)


@settings(deadline=None)
@given(st.lists(INT64, min_size=1, max_size=5), st.integers(1, 12), st.data())
def test_a_subset_has_distinct_indices_that_follow_from_the_seed_alone(
    seeds: list[int], size: int, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(0, size))
    found = subset(torch.tensor(seeds), size, keep).tolist()
    for seed, row in zip(seeds, found, strict=True):
        assert row == sorted(set(row)) and len(row) == keep and set(row) <= set(range(size))
        assert subset(torch.tensor([seed]), size, keep).tolist() == [row]
