"""The loader: batches from real shards, in processes or not, resumed, damaged, and killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from tests.training.data.shards import Build, row, write_build
from training.data import (
    AudioInput,
    AugmentSettings,
    Batch,
    DataSettings,
    Loader,
    MaskingSettings,
    MixtureItem,
    Order,
    SequentialOrder,
)
from training.data.streaming import stream

AUDIO = AudioInput("passt", 32000, segment_s=1.0, hop_s=1.0, max_s=3.0)
SETTINGS = DataSettings(
    train=(MixtureItem("clotho/development"), MixtureItem("wavcaps", repeat=2.0)),
    batch_size=12,
    crop_s=2.5,
    masking=MaskingSettings(time_masks=2, time_width=30, freq_masks=2, freq_width=20),
    augment=AugmentSettings(gain_db=6.0, noise=0.5, room=0.5, mixup=0.5),
)


class Letters:
    """A tokenizer of letters, with the interface of transformers' tokenizers."""

    def __call__(self, texts: list[str], max_length: int, **options: Any) -> dict[str, torch.Tensor]:
        cut = [text[:max_length] for text in texts]
        ids = torch.zeros(len(cut), max(map(len, cut)), dtype=torch.int64)
        for place, text in enumerate(cut):
            ids[place, : len(text)] = torch.tensor([ord(letter) for letter in text])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    rows = [row(n, duration_s=0.4 + n % 7 * 0.6) for n in range(30)]
    rows += [row(n, "wavcaps", "train", duration_s=2.0) for n in range(9)]
    return write_build(tmp_path_factory.mktemp("build"), rows)


def loader(build: Build, settings: DataSettings = SETTINGS, workers: int = 0, **more: Any) -> Loader:
    order = Order(build.table, settings, 11)
    return Loader(build, order, settings, more.pop("audio", AUDIO), Letters(), workers=workers, **more)


def samples(batches: list[Batch]) -> list[tuple]:
    """Everything about each sample, padding left out, so that ranks' parts can be compared with the whole."""
    out = []
    for batch in batches:
        for place, key in enumerate(batch.keys):
            real = batch.frames[place] > 0
            tokens = batch.tokens[place][batch.token_mask[place]].tolist()
            ids = [int(getattr(batch, name)[place]) for name in ("clip", "caption", "group", "kin", "seeds")]
            features = batch.features[place][real].numpy().tobytes()
            out.append((key, batch.texts[place], batch.frames[place][real].tolist(), tokens, ids, features))
    return out


@pytest.fixture(scope="module")
def whole(build: Build) -> list[list[tuple]]:
    """The samples of each step of epoch 1, by one rank in one process."""
    return [samples([batch]) for batch in loader(build).epoch(1)]


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


def test_spectrograms_on_a_device_are_the_workers_own(build: Build) -> None:
    from dataclasses import replace

    ours = next(loader(build).epoch(0))
    there = next(loader(build, replace(SETTINGS, spectrogram="device")).epoch(0))
    assert torch.equal(ours.frames, there.frames)
    assert (ours.features - there.features).abs().max() < 1e-4


def test_masks_fill_with_silence_or_as_published(build: Build) -> None:
    from dataclasses import replace

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
    from dataclasses import replace

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
    """Of the same one, the caption of half of what is heard would count as wrong."""
    mixed = loader(build)
    mixed._requests.epoch = 0
    for step in range(mixed.order.steps_per_epoch):
        request = mixed._requests.request(step)
        assert request.partners is not None
        following = mixed.order.batch(*divmod(step + 1, mixed.order.steps_per_epoch))
        assert set(request.partners.keys) <= set(following.keys)


@pytest.mark.parametrize("wrong", [{"audio_xxh3": 1}, {"audio_xxh3": None, "audio_sha256": "0" * 64}])
def test_bytes_with_another_checksum_are_refused(build: Build, tmp_path: Path, wrong: dict[str, Any]) -> None:
    copy = write_build(tmp_path, build.table.to_pylist())
    rows = copy.table.to_pylist()
    rows[0] |= wrong
    copy.table = type(copy.table).from_pylist(rows, schema=copy.table.schema)
    with pytest.raises(InputError, match="checksum"):
        list(loader(copy).epoch(0))


def test_a_changed_sample_of_a_format_without_checksums_is_found(build: Build, tmp_path: Path) -> None:
    import io

    import soundfile

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


def test_a_failing_store_is_asked_again(build: Build, whole: list[list[tuple]], monkeypatch) -> None:
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


def test_reads_are_what_is_used_and_neighbours_are_one_read(build: Build) -> None:
    from dataclasses import replace

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


def test_a_cut_between_neighbours_is_no_other_sample(tmp_path: Path) -> None:
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


class Deadly:
    """A store that kills its reader."""

    def read(self, *args: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_a_dead_worker_is_an_error_and_not_a_hang(build: Build) -> None:
    with pytest.raises(InputError, match="worker"):
        list(loader(Build(build.table, Deadly()), workers=1).epoch(0))


def test_streaming_gives_the_same_samples(build: Build) -> None:
    """Without an index: every clip once, and the transforms of the exact loader."""
    from dataclasses import replace

    plain = replace(
        SETTINGS,
        train=(MixtureItem("clotho/development"),),
        batch_size=10,
        augment=AugmentSettings(gain_db=6.0, noise=0.5),
    )
    urls = [str(build.storage.local / "shards" / name) for name in sorted(set(build.table["shard"].to_pylist()))]
    streamed = samples(list(stream(urls, plain, AUDIO, Letters(), epoch=0, seed=11)))
    exact = samples(list(loader(build, plain).epoch(0)))
    assert len(streamed) == 30 and sorted(streamed) == sorted(exact)


def test_streaming_is_split_over_workers_and_leaves_out_other_captions(build: Build) -> None:
    from dataclasses import replace

    from torch.utils.data import DataLoader

    items = (MixtureItem("clotho/development", captions=("label",)), MixtureItem("wavcaps", captions=("human",)))
    plain = replace(SETTINGS, train=items, batch_size=3, last="keep", augment=AugmentSettings())
    urls = [str(path) for path in sorted((build.storage.local / "shards").glob("*.tar"))]
    for workers in (0, 2):
        batches = DataLoader(stream(urls, plain, AUDIO, Letters()), batch_size=None, num_workers=workers)
        keys = [key for batch in batches for key in batch.keys]
        assert sorted(keys) == sorted(key for key in build.table["key"].to_pylist() if key.startswith("wavcaps"))
