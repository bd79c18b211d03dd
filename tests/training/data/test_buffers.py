"""Batches that lie in shared memory: never overwritten while someone holds them, used again when nobody does."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from sharding.common.errors import InputError
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, samples
from tests.training.data.shards import Build, row, write_build
from training.data import DataSettings, Loader, MixtureItem, Order
from training.data.buffers import BufferPool

SETTINGS = DataSettings(train=(MixtureItem("clotho", repeat=4.0),), batch_size=6, crop_s=2.0, readahead=1)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return write_build(tmp_path_factory.mktemp("build"), [row(n, duration_s=0.3 + n % 5 * 0.4) for n in range(12)])


def loader(build: Build, workers: int) -> Loader:
    return Loader(build, Order(build.table, SETTINGS, 1), SETTINGS, AUDIO, Letters(), workers=workers)


def test_batches_that_are_kept_stay_what_they_were(build: Build) -> None:
    """More of them than there is shared memory for."""
    wanted = [samples([batch]) for batch in loader(build, 0).epoch(0)]
    kept = list(loader(build, 1).epoch(0))
    assert len(kept) == 8
    assert [samples([batch]) for batch in kept] == wanted
    parts = [batch.features[1] for batch in kept]
    values = [part.clone() for part in parts]
    del kept
    gc.collect()
    assert all(torch.equal(part, value) for part, value in zip(parts, values, strict=True)), "a view holds the memory"


def test_an_unfinished_epoch_does_not_change_the_next_one(build: Build) -> None:
    wanted = [samples([batch]) for batch in loader(build, 0).epoch(1)]
    again = loader(build, 2)
    for _ in range(3):
        left = again.epoch(0)
        next(left)
        assert [samples([batch]) for batch in again.epoch(1)] == wanted
        with pytest.raises(InputError, match="ended by a later call"):
            next(left)


def test_a_buffer_is_free_again_when_its_last_tensor_is_gone() -> None:
    pool = BufferPool(2, 8)
    one, other = pool.reserve(), pool.reserve()
    assert {one, other} == {0, 1} and pool.reserve() is None
    filled, sent = pool.fill(one, (2, 4))
    assert sent is not None
    filled[:] = 3
    here = sent.read()
    assert (here == 3).all()
    view = here[1]
    del here, filled
    assert pool.reserve() is None
    del view
    assert pool.reserve() == one
    pool.free_reserved()
    assert {pool.reserve(), pool.reserve()} == {0, 1}


def test_a_batch_that_is_too_large_for_its_buffer_is_sent_by_itself() -> None:
    pool = BufferPool(1, 8)
    tensor, sent = pool.fill(pool.reserve(), (3, 3))
    assert sent is None and tensor.shape == (3, 3)


def test_ranks_of_one_machine_leave_nothing_behind(build: Build, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.is_dir() else set()
    list(loader(build, 1).epoch(0))
    gc.collect()
    assert (set(shared.iterdir()) if shared.is_dir() else set()) <= before
