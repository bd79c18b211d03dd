"""The loader: batches from real shards, in processes or not, resumed, damaged, and killed."""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, SETTINGS, loader, samples
from tests.training.data.shards import Build, write_build
from training.data import AugmentSettings, Loader, MaskingSettings, SequentialOrder


def test_a_batch_is_what_it_says(build: Build) -> None:
    batch = next(loader(build).epoch(0))
    assert batch.features.shape == (12, 3, 128, 100)
    assert batch.features.dtype == torch.float32 and batch.frames.dtype == torch.int64
    assert batch.token_mask.dtype == torch.bool and batch.valid.all()
    padding = batch.frames == 0
    assert not batch.features[padding].any()
    assert batch.frames[:, 0].min() > 0
    moved = batch.to("meta")
    assert moved.features.device.type == "meta" and moved.keys == batch.keys


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(build: Build, whole: list[list[tuple]], workers: int) -> None:
    several = loader(build, workers=workers)
    assert [samples([batch]) for batch in several.epoch(1)] == whole
    assert [samples([batch]) for batch in several.epoch(1, 2)] == whole[2:], "resumed in the same processes"


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_change_nothing(build: Build, whole: list[list[tuple]], world: int) -> None:
    ranks = [list(loader(build, rank=rank, world=world).epoch(1, 1)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1, "every rank gets the same number of batches"
    for step, parts in enumerate(zip(*ranks, strict=True), 1):
        assert samples(list(parts)) == whole[step]


def test_spectrograms_on_a_device_equal_those_of_the_workers(build: Build) -> None:
    ours = next(loader(build).epoch(0))
    there = next(loader(build, replace(SETTINGS, spectrogram="device")).epoch(0))
    assert torch.equal(ours.frames, there.frames)
    assert (ours.features - there.features).abs().max() < 1e-4


def test_masks_fill_with_silence_or_as_published(build: Build) -> None:
    plain = replace(SETTINGS, masking=MaskingSettings(), augment=AugmentSettings())
    unmasked = next(loader(build, plain).epoch(0))
    floor = (np.log(1e-5) + 4.5) / 5
    for fill, value in (("floor", floor), ("published", 0.9)):
        masking = MaskingSettings(2, 30, 2, 20, fill)  # type: ignore[arg-type]
        masked = next(loader(build, replace(plain, masking=masking)).epoch(0))
        changed = masked.features != unmasked.features
        assert 0.02 < changed.float().mean() < 0.7
        assert (masked.features[changed] - value).abs().max() < 1e-6


def test_evaluation_has_no_randomness(build: Build) -> None:
    order = SequentialOrder(build.table, "clotho/development", SETTINGS, batch_size=8)
    one, two = (
        [samples([b]) for b in Loader(build, order, SETTINGS, AUDIO, Letters(), workers=0, train=False).epoch(e)]
        for e in (0, 5)
    )
    assert one == two and sum(map(len, one)) == 30


def test_a_rank_without_samples_still_gets_its_batch(build: Build) -> None:
    order = SequentialOrder(build.table, "wavcaps", SETTINGS, batch_size=8)
    batches = list(Loader(build, order, SETTINGS, AUDIO, Letters(), 0, 4, workers=0, train=False).epoch(0))
    assert [len(batch) for batch in batches] == [2, 0]
    assert batches[1].features.shape == (0, 1, 128, 100)


def damaged(build: Build, root: Path, number: int) -> tuple[Build, str]:
    """The build with one sample's audio overwritten."""
    rows = build.table.to_pylist()
    copy = write_build(root, [{**one, "captions": one["captions"]} for one in rows])
    victim = copy.table.to_pylist()[number]
    spoil(root, victim)
    return copy, victim["key"]


def spoil(root: Path, victim: dict[str, Any]) -> None:
    with (root / "shards" / victim["shard"]).open("r+b") as file:
        file.seek(victim["audio_offset"])
        file.write(bytes(victim["audio_bytes"]))


def test_a_damaged_sample_stops_the_run_and_is_named(build: Build, tmp_path: Path) -> None:
    broken, key = damaged(build, tmp_path, 3)
    with pytest.raises(InputError, match=key.replace("+", r"\+")):
        list(loader(broken, workers=1).epoch(0))


def test_a_damaged_sample_can_be_left_out_and_is_counted(build: Build, tmp_path: Path) -> None:
    broken, key = damaged(build, tmp_path, 3)
    allowed = replace(SETTINGS, max_failures=1, augment=AugmentSettings())
    one = loader(broken, allowed)
    batches = list(one.epoch(0))
    assert [k for b in batches for k, ok in zip(b.keys, b.valid.tolist(), strict=True) if not ok] == [key]
    assert list(one.failures) == [key] and key in one.failures[key]
    list(one.epoch(1))  # the same sample again is no other damage
    assert list(one.failures) == [key]
    spoil(tmp_path, broken.table.slice(7, 1).to_pylist()[0])
    with pytest.raises(InputError, match="2 samples are damaged"):
        list(one.epoch(2))


def test_what_is_mixed_in_comes_from_the_next_batch(build: Build) -> None:
    """In the same batch, the caption of the clip that is mixed in would count as a negative."""
    mixed = loader(build)
    mixed._requests.epoch = 0
    for step in range(mixed.order.steps_per_epoch):
        request = mixed._requests.request(step)
        assert request.partners is not None
        following = mixed.order.batch(*divmod(step + 1, mixed.order.steps_per_epoch))
        assert set(request.partners.keys) <= set(following.keys)


class Deadly:
    """A store that kills its reader."""

    def read(self, *args: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_a_dead_worker_is_an_error_and_not_a_hang(build: Build) -> None:
    with pytest.raises(InputError, match="worker"):
        list(loader(Build(build.table, Deadly()), workers=1).epoch(0))


def test_workers_inherit_no_garbage(build: Build) -> None:
    """The destructor of an object with threads would wait for ever in a worker, because a fork copies no threads."""
    destroyed = []

    class InACycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            destroyed.append(os.getpid())

    gc.disable()
    try:
        InACycle()
        batches = loader(build, workers=1).epoch(0)
        assert len(next(batches)) and destroyed == [os.getpid()]
    finally:
        gc.enable()
    assert len([*batches])
