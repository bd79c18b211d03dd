"""Resampling in blocks."""

from __future__ import annotations

import numpy as np
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.audio.resample import Resampler
from tests.sharding.corpora import noise


@given(cuts=st.lists(st.integers(0, 16000), max_size=6), rate=st.sampled_from([8000, 22050, 44100]))
@settings(max_examples=20, deadline=None)
def test_blocks_of_any_length_give_the_sound_of_the_whole(cuts: list[int], rate: int) -> None:
    wave = noise(3, 1.0, 16000)[:, None]
    resampler = Resampler(16000, rate, 1)
    parts = [resampler.push(part) for part in np.split(wave, sorted(cuts))]
    found = np.concatenate([*parts, resampler.finish()])
    np.testing.assert_allclose(found, soxr.resample(wave, 16000, rate, quality="HQ"), atol=1e-5)


def test_equal_rates_change_nothing() -> None:
    block = noise(3, 0.1, 16000)[:, None]
    resampler = Resampler(16000, 16000, 1)
    assert resampler.push(block) is block and resampler.finish().shape == (0, 1)
