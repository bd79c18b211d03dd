"""Encoding for shards."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf

from sharding.audio import AudioForm, decode_segment, encode, quantise
from tests.sharding.corpora import noise


@pytest.mark.parametrize("codec", ["flac", "wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_codecs_keep_every_sample(codec: str, channels: int) -> None:
    samples = quantise(np.stack([noise(seed, 0.5) for seed in range(channels)], 1))
    data = encode(samples, AudioForm(codec, 32000, channels))
    found, rate = sf.read(io.BytesIO(data), dtype="int16", always_2d=True)
    assert rate == 32000 and np.array_equal(found, samples)
    assert encode(samples, AudioForm(codec, 32000, channels)) == data


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_is_the_same_bytes_and_as_long_as_what_was_encoded(channels: int) -> None:
    samples = quantise(np.stack([noise(seed, 0.507, 48000) for seed in range(channels)], 1))
    form = AudioForm("opus", 48000, channels)
    data = encode(samples, form)
    assert encode(samples, form) == data
    wave, rate = decode_segment(data)
    assert rate == 48000 and abs(len(wave) - len(samples)) <= 960
