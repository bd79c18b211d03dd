"""The parts of synthesised sounds."""

from __future__ import annotations

import numpy as np
import pytest

from sharding.demo.waves import RATE, add_at, background, drift, echo, noise, regular_times, samples, spread_times


def test_noise_keeps_to_its_band_and_has_unit_level() -> None:
    wave = noise(np.random.default_rng(0), samples(2.0), 1000, 2000)
    power = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    assert power[(hertz > 700) & (hertz < 2900)].sum() > 0.95 * power.sum()
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1.0, abs=1e-3)


def test_hits_are_added_at_their_times() -> None:
    wave = add_at(1.0, [0.25, 0.9999], [np.ones(10, np.float32), np.ones(100, np.float32)])
    assert len(wave) == RATE and wave[RATE // 4 : RATE // 4 + 10].all()
    assert np.count_nonzero(wave) == 10 + RATE - int(0.9999 * RATE)  # a hit is cut off at the end


def test_times_lie_inside_the_sound() -> None:
    rng = np.random.default_rng(1)
    assert all(0 <= time < 4.0 for time in regular_times(rng, 4.0, 3.0))
    times = spread_times(rng, 6.0, 4, 0.3)
    assert len(times) == 4 and times == sorted(times) and times[-1] + 0.3 <= 6.5


def test_random_parts_differ_from_each_other() -> None:
    rng = np.random.default_rng(2)
    assert not np.allclose(drift(rng, 1000, 0.5), drift(rng, 1000, 0.5))
    level = 20 * np.log10(np.sqrt(np.mean(background(rng, RATE) ** 2)))
    assert -47 < level < -37
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    assert np.count_nonzero(echo(rng, click)) > 5
