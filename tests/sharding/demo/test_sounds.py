"""Synthesised sounds."""

from __future__ import annotations

import numpy as np
import pytest

from sharding.demo.sounds import SOUNDS, make_sound
from sharding.demo.waves import samples


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_finite_audible_and_never_the_same_twice(name: str) -> None:
    waves = [make_sound(np.random.default_rng(seed), name, 4.0, seed % 2, 3, False) for seed in range(4)]
    for wave in waves:
        assert wave.dtype == np.float32 and len(wave) == samples(4.0)
        assert np.isfinite(wave).all() and 0.02 < np.abs(wave).max() <= 1.001
    assert not np.allclose(waves[0], waves[2])
