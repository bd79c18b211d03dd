"""From a request to a batch, without a loader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, SETTINGS
from tests.training.data.shards import Build
from training.data import AudioInput, AugmentSettings, DataSettings, FeatureExtractor, MaskingSettings, Order
from training.data.buffers import BufferPool, FilledBuffer
from training.data.builder import BatchBuilder, BatchRequest
from training.data.samples import SampleReader


def builder(build: Build, settings: DataSettings = SETTINGS, **more: Any) -> BatchBuilder:
    reader = SampleReader(build.storage, AUDIO.rate, AUDIO.max_s)
    return BatchBuilder(reader, FeatureExtractor(AUDIO, settings.masking, True), settings, Letters(), **more)


def request(build: Build, **more: Any) -> BatchRequest:
    return BatchRequest(Order(build.table, SETTINGS, 11).batch(0, 0), None, **more)


def test_a_batch_in_a_buffer_is_the_batch_that_is_sent(build: Build) -> None:
    one = builder(build)
    sent = one.build(request(build))
    pool = BufferPool(1, 12 * one.floats_per_clip())
    filled = replace(one, buffers=pool).build(request(build, buffer=pool.reserve()))
    assert isinstance(sent.features, torch.Tensor) and isinstance(filled.features, FilledBuffer)
    a, b = sent.unpack(), filled.unpack()
    assert torch.equal(a.features, b.features) and torch.equal(a.frames, b.frames) and a.keys == b.keys


def test_the_largest_clip_has_as_many_numbers_as_expected(build: Build) -> None:
    one = builder(build)
    batch = one.build(request(build)).unpack()
    assert batch.features[0].numel() == one.floats_per_clip()


def test_an_error_is_returned_so_that_no_worker_wraps_it(build: Build) -> None:
    draws = request(build).draws
    damaged = replace(draws, size=draws.size + np.int64(1 << 40))
    found = builder(build)[BatchRequest(damaged, None)]
    assert isinstance(found, InputError) and draws.keys[0].split("~")[0] in str(found)


def test_a_damaged_sample_is_silence_of_its_length(build: Build) -> None:
    draws = request(build).draws
    broken = replace(draws, xxh3=[1, *draws.xxh3[1:]])
    batch = builder(build, replace(SETTINGS, max_failures=1)).build(BatchRequest(broken, None)).unpack()
    whole = builder(build).build(BatchRequest(draws, None)).unpack()
    assert batch.valid.tolist() == [False] + [True] * 11 and len(batch.failures) == 1
    assert torch.equal(batch.frames, whole.frames)
    assert torch.equal(batch.features[1:], whole.features[1:]) and not torch.equal(batch.features[0], whole.features[0])


def test_a_batch_without_samples_has_its_shapes(build: Build) -> None:
    draws = request(build).draws.take(np.zeros(0, np.int64))
    batch = builder(build).build(BatchRequest(draws, None)).unpack()
    assert batch.features.shape == (0, 1, 128, 100) and batch.tokens.shape == (0, 1) and len(batch) == 0


@pytest.mark.parametrize("hop_s", [1.0, 0.5])
@pytest.mark.parametrize("rate", [32000, 16000])
def test_samples_are_written_where_the_batch_lies_as_they_are_elsewhere(build: Build, rate: int, hop_s: float) -> None:
    """Waves of one segment and several, with a rest that is left out, resampled or not, and one that is damaged."""
    name = "samples" if rate == 32000 else "samples-16000"
    audio, settings = AudioInput(name, rate, 1.0, hop_s, 3.0), replace(SETTINGS, augment=AugmentSettings())
    drawn = request(build).draws
    seconds = np.minimum(np.resize([1.0, 1.03, 0.4, 2.5, 1.02], 12), drawn.duration_s)
    draws = replace(drawn, duration_s=seconds, xxh3=[*drawn.xxh3[:3], 1, *drawn.xxh3[4:]])
    reader = SampleReader(build.storage, rate, audio.max_s)
    one = BatchBuilder(
        reader, FeatureExtractor(audio, MaskingSettings(), True), replace(settings, max_failures=1), Letters()
    )
    pool = BufferPool(1, 12 * one.floats_per_clip())
    buffer = pool.reserve()
    pool._array(buffer or 0, (12 * one.floats_per_clip(),)).fill(np.nan)  # what an earlier batch left
    batch = replace(one, buffers=pool).build(BatchRequest(draws, None, buffer)).unpack()
    read = reader.start(draws)
    for row in range(12):
        wave = np.zeros(reader.length(draws, row), np.float32) if row == 3 else read(row)
        wanted = np.zeros(batch.features[row].squeeze(1).shape, np.float32)
        segments = audio.cut(wave)
        wanted[: len(segments)] = segments
        assert np.array_equal(batch.features[row].squeeze(1).numpy(), wanted)
        assert batch.frames[row].tolist()[: len(segments)] == audio.segment_lengths(len(wave)).tolist()
    assert batch.valid.tolist() == [row != 3 for row in range(12)]
