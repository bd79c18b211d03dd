from __future__ import annotations

import numpy as np
import pytest

from training.search.page.spectrum import BANDS, COLUMNS, spectrum

RATE = 32000


def tone(hertz: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def test_high_tones_are_above_low_ones_and_time_goes_to_the_right() -> None:
    wave = np.concatenate([tone(200, 2.0), tone(5000, 2.0)])
    levels = spectrum(wave, RATE)
    assert levels.shape[0] == BANDS and levels.shape[1] <= COLUMNS
    early, late = levels[:, 10], levels[:, -10]
    assert early.argmax() > BANDS / 2 > late.argmax()
    assert levels.max() == 255


def test_a_short_click_in_a_long_recording_stays_visible() -> None:
    wave = 0.001 * np.random.default_rng(0).standard_normal(RATE * 60).astype(np.float32)
    wave[RATE * 30 : RATE * 30 + 200] += 0.9
    levels = spectrum(wave, RATE)
    assert abs(int(levels.mean(axis=0).argmax()) - COLUMNS // 2) <= 1


@pytest.mark.parametrize("samples", [0, 1, 1023, 1024, 5000])
@pytest.mark.parametrize("rate", [4000, 8000, 192000])
def test_short_and_silent_sounds_have_an_empty_picture(samples: int, rate: int) -> None:
    levels = spectrum(np.zeros(samples, np.float32), rate)
    assert levels.shape[0] == BANDS and levels.shape[1] >= 1 and levels.max() == 0
