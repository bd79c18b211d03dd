"""Levels, bandwidth and hash of sound in blocks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sharding.probe.measures import Measures
from tests.sharding.corpora import noise


def measured(*blocks: np.ndarray) -> Measures:
    measures = Measures()
    for block in blocks:
        measures.push(block.astype(np.float32))
    return measures


def test_levels_and_hash_are_those_of_the_samples() -> None:
    wave = noise(1, 2.0)
    measures = measured(wave[:20000], wave[20000:20000], wave[20000:])
    assert measures.frames == 64000
    assert measures.peak == pytest.approx(np.abs(wave).max())
    assert measures.rms == pytest.approx(np.sqrt(np.mean(wave.astype(float) ** 2)), rel=1e-5)
    samples = np.clip(np.rint(wave * 32768), -32768, 32767).astype("<i2")
    assert measures.pcm_sha256 == hashlib.sha256(samples.tobytes()).hexdigest()


@pytest.mark.parametrize("frequency", [1000.0, 5000.0, 12000.0])
def test_the_bandwidth_of_a_tone_is_its_frequency(frequency: float) -> None:
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(64000) / 32000)
    assert measured(wave).bandwidth_hz == pytest.approx(frequency, abs=150)


def test_silence_is_constant_and_one_other_sample_is_not() -> None:
    assert measured(np.zeros(4000)).constant
    assert measured(np.full(4000, 0.25)).constant
    assert not measured(np.zeros(4000), np.array([0.001])).constant
    assert measured().peak == 0.0 and measured().rms == 0.0
