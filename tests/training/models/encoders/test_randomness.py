from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.encoders.randomness import noisy, normal, splitmix64, subset

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


def test_normal_numbers_follow_from_the_seed_and_are_normal() -> None:
    seeds = torch.arange(50)
    found = normal(seeds, (10, 40))
    assert found.shape == (50, 10, 40) and found.dtype == torch.float32
    assert normal(seeds[7:8], (10, 40)).equal(found[7:8])
    assert abs(float(found.mean())) < 0.02 and abs(float(found.std()) - 1) < 0.02
    assert abs(float((found.abs() > 1.96).double().mean()) - 0.05) < 0.005
    assert abs(float(torch.corrcoef(found.flatten(1)[:2])[0, 1])) < 0.15
    assert bool(found.isfinite().all())


def test_noise_belongs_to_the_sample_and_lies_on_sound_alone() -> None:
    features, frames = torch.zeros(3, 2, 4, 50), torch.tensor([[50, 50], [50, 20], [30, 0]])
    seeds = torch.tensor([1, 2, 3])
    found = noisy(features, frames, seeds, 0.5)
    assert noisy(features[1:2], frames[1:2], seeds[1:2], 0.5).equal(found[1:2])
    assert 0.4 < float(found[0].std()) < 0.6
    assert bool((found[1, 1, :, 20:] == 0).all()) and bool((found[2, 1] == 0).all())
    assert not found[0, 0].equal(found[0, 1]) and not found[0, 0].equal(found[1, 0])
