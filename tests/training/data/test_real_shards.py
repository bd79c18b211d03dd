"""The loader over shards that `sharding build` wrote: refused when they are damaged, equal from an object store."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import write_corpus
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, samples
from training.cli import main
from training.data import DataSettings, Loader, MaskingSettings, MixtureItem, Order

SETTINGS = DataSettings(
    train=(MixtureItem("mine/train"),), batch_size=4, crop_s=3.0, masking=MaskingSettings(1, 30, 1, 20)
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    build(settings_for(write_corpus(folder / "corpus")), str(folder / "out"), LocalRunner(1))
    return folder / "out"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def loader(url: str | Path, settings: DataSettings = SETTINGS, workers: int = 0) -> Loader:
    manifest = Manifest.open(str(url))
    return Loader(manifest, Order(manifest.table, settings, 3), settings, AUDIO, Letters(), workers=workers)


def epoch(url: str | Path, **more: Any) -> list[list[tuple]]:
    return [samples([batch]) for batch in loader(url, **more).epoch(0)]


def shards(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("*.tar"))


def cut(out: Path) -> Path:
    victim = shards(out)[1]
    os.truncate(victim, victim.stat().st_size - 512)
    return victim


def lose(out: Path) -> Path:
    victim = shards(out)[0]
    victim.unlink()
    return victim


def exchange(out: Path) -> Path:
    first, other = sorted(shards(out), key=lambda path: path.stat().st_size)[:: len(shards(out)) - 1]
    aside = out / "aside"
    first.rename(aside)
    other.rename(first)
    aside.rename(other)
    return min(first, other)


def change_manifest(out: Path) -> Path:
    victim = min((out / "manifest").glob("*.parquet"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    return victim


@pytest.mark.parametrize("harm", [cut, lose, exchange, change_manifest])
def test_shards_that_disagree_with_the_build_are_refused_at_once(copy: Path, harm) -> None:
    victim = harm(copy)
    with pytest.raises(InputError) as caught:
        Manifest.open(copy)
    assert victim.name in str(caught.value) or harm is exchange


def test_a_flipped_byte_in_a_sample_stops_the_run_and_names_it(copy: Path) -> None:
    row = Manifest.open(copy).table.to_pylist()[0]
    with (copy / "shards" / row["shard"]).open("r+b") as file:
        file.seek(row["audio_offset"] + row["audio_bytes"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    whole = replace(SETTINGS, train=(MixtureItem(f"{row['dataset']}/{row['split']}"),), last="keep", crop_s=60.0)
    for workers in (0, 1):
        with pytest.raises(InputError, match=row["key"]):
            epoch(copy, settings=whole, workers=workers)


def test_a_shard_that_vanishes_while_reading_is_named(copy: Path) -> None:
    started = loader(copy)
    for shard in shards(copy):
        shard.unlink()
    with pytest.raises(InputError, match="the shard is gone"):
        list(started.epoch(0))


def test_a_killed_worker_ends_the_epoch_and_not_the_loader(built: Path) -> None:
    before = set(multiprocessing.active_children())
    long = replace(SETTINGS, train=(MixtureItem("mine/train", repeat=40.0),), readahead=1)
    several = loader(built, long, workers=2)
    batches = several.epoch(0)
    first = samples([next(batches)])
    (worker, _) = sorted(set(multiprocessing.active_children()) - before, key=lambda process: process.pid or 0)
    began = time.monotonic()
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(InputError, match="worker died"):
        list(batches)
    assert time.monotonic() - began < 60
    assert samples([next(several.epoch(0))]) == first, "a new epoch starts new workers"


@pytest.fixture
def bucket(built: Path, s3: str, tmp_path: Path) -> str:
    here, there = Storage(built), Storage(f"{s3}/{tmp_path.name}")
    for name in here.list():
        there.write(name, here.read(name))
    return there.url


def test_an_object_store_gives_what_a_folder_gives(built: Path, bucket: str, s3_failures, cache_folder: Path) -> None:
    """Also in workers that are forked while the store's connections are open, and while it fails now and then."""
    wanted = epoch(built)
    reads = []

    def shower(request: dict[str, Any]) -> str | None:
        if "/shards/" not in request["PATH_INFO"] or "HTTP_RANGE" not in request:
            return None
        reads.append(request["HTTP_RANGE"])
        return "503 Slow Down" if len(reads) % 3 == 1 else None

    assert epoch(bucket) == wanted
    shutil.rmtree(cache_folder)  # or nothing would be read again
    s3_failures.rule = shower
    try:
        assert epoch(bucket, workers=1) == wanted
    finally:
        s3_failures.rule = lambda request: None
    assert len(reads) > len(wanted)


def test_a_store_that_refuses_is_an_error_that_names_the_sample(bucket: str, s3_failures) -> None:
    started = loader(bucket)
    s3_failures.rule = lambda request: "403 Forbidden"
    try:
        with pytest.raises(InputError, match=r"sample mine~train.*cannot be read"):
            next(started.epoch(0))
    finally:
        s3_failures.rule = lambda request: None


def test_order_shows_the_same_batch_on_any_machines(built: Path, capsys) -> None:
    """`python -m training order`: keys, captions, crops, masks, and features as the loader's workers make them."""
    arguments = ["order", "dual_encoder_small", "--shards", str(built), "--epoch", "1", "--step", "1", "--json"]
    for change in ("batch_size=4", "train=[{split: mine/train, repeat: 1.5}]", "masking={time_masks: 1}"):
        arguments += ["--set", f"data.{change}"]
    shown = []
    for world, workers in ((1, 0), (2, 1), (4, 0)):
        assert main([*arguments, "--world", str(world), "--workers", str(workers)]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1] == shown[2]
    (sample, *_) = shown[0]["samples"]
    assert {"key", "caption", "start_s", "duration_s", "masks", "seed", "features"} <= set(sample)
    manifest = Manifest.open(built)
    settings = replace(SETTINGS, train=(MixtureItem("mine/train", repeat=1.5),))
    keys = Order(manifest.table, settings, 0).batch(1, 1).keys
    assert [each["key"] for each in shown[0]["samples"]] == keys
