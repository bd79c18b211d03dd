"""Samples by offset: what is read, and what happens to cut shards, changed bytes and failing stores."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sharding.common.errors import InputError
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, SETTINGS, loader, samples
from tests.training.data.shards import Build, row, write_build
from training.data import AugmentSettings, DataSettings, Loader, MixtureItem, Order, SequentialOrder


@pytest.mark.parametrize("wrong", [{"audio_xxh3": 1}, {"audio_xxh3": None, "audio_sha256": "0" * 64}])
def test_bytes_with_another_checksum_are_refused(build: Build, tmp_path: Path, wrong: dict[str, Any]) -> None:
    copy = write_build(tmp_path, build.table.to_pylist())
    rows = copy.table.to_pylist()
    rows[0] |= wrong
    copy.table = type(copy.table).from_pylist(rows, schema=copy.table.schema)
    with pytest.raises(InputError, match="checksum"):
        list(loader(copy).epoch(0))


def test_a_changed_sample_of_a_format_without_checksums_is_found(build: Build, tmp_path: Path) -> None:
    copy = write_build(tmp_path, build.table.to_pylist()[:12])
    rows = copy.table.to_pylist()
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3200), 32000, format="WAV", subtype="PCM_16")
    rows[5] |= {"duration_s": 0.1, "audio_bytes": len(file.getvalue())}
    with (tmp_path / "shards" / rows[5]["shard"]).open("r+b") as shard:
        shard.seek(rows[5]["audio_offset"])
        shard.write(file.getvalue())
    copy.table = type(copy.table).from_pylist(rows, schema=copy.table.schema)
    one = DataSettings(train=(MixtureItem("clotho"),), batch_size=12)
    with pytest.raises(InputError, match="checksum"):
        list(loader(copy, one).epoch(0))


def test_a_cut_shard_is_named(build: Build, tmp_path: Path) -> None:
    copy = write_build(tmp_path, build.table.to_pylist())
    shard = tmp_path / "shards" / "clotho-development-000000.tar"
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(InputError, match=r"clotho-development-000000\.tar"):
        list(loader(copy).epoch(0))


class Flaky:
    """A store that fails twice for every read."""

    def __init__(self, storage: Any) -> None:
        self.storage, self.calls = storage, 0

    def read(self, *args: Any) -> bytes:
        self.calls += 1
        if self.calls % 3:
            raise ConnectionError("reset by peer")
        return self.storage.read(*args)


def test_a_failing_store_is_read_again(build: Build, whole: list[list[tuple]], monkeypatch) -> None:
    monkeypatch.setattr("training.data.samples.PAUSES_S", (0.001, 0.001))
    again = loader(Build(build.table, Flaky(build.storage)))
    assert samples([next(again.epoch(1))]) == whole[0]


class Counting:
    """A store that notes what is read."""

    def __init__(self, storage: Any) -> None:
        self.storage, self.sizes = storage, []

    def read(self, *args: Any) -> bytes:
        data = self.storage.read(*args)
        self.sizes.append(len(data))
        return data


def test_only_used_bytes_are_read_and_neighbours_share_a_read(build: Build) -> None:
    counted, plain = Counting(build.storage), replace(SETTINGS, augment=AugmentSettings())
    used = sum(build.table["audio_bytes"].to_pylist()[:30])
    orders = (SequentialOrder(build.table, "clotho", plain, 15), Order(build.table, replace(plain, batch_size=3), 0))
    for order, reads in zip(orders, (2, 30), strict=True):
        counted.sizes.clear()
        steps = order.steps_per_epoch
        list(Loader(Build(build.table, counted), order, plain, AUDIO, Letters(), workers=0).epoch(0))
        needed = used if reads == 2 else sum(int(order.batch(0, step).size.sum()) for step in range(steps))
        assert needed <= sum(counted.sizes) < 1.1 * needed
        assert len(counted.sizes) == 2 if reads == 2 else len(counted.sizes) >= reads


def test_a_shard_that_is_cut_between_neighbouring_samples_is_noticed(tmp_path: Path) -> None:
    """Samples of equal size that are read at once: what is left after a cut must not pass for the second."""
    clips = write_build(tmp_path, [row(n, duration_s=1.0) for n in range(2)])
    rows = clips.table.to_pylist()
    rows[1]["audio_bytes"] = rows[0]["audio_bytes"]
    clips.table = type(clips.table).from_pylist(rows, schema=clips.table.schema)
    shard = tmp_path / "shards" / rows[0]["shard"]
    os.truncate(shard, rows[0]["audio_offset"] + rows[0]["audio_bytes"])
    with pytest.raises(InputError, match=r"clip\+1.*too early"):
        order = SequentialOrder(clips.table, "clotho", SETTINGS, 2)
        list(Loader(clips, order, SETTINGS, AUDIO, Letters(), workers=0, train=False).epoch(0))
