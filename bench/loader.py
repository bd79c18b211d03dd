"""Loading: clips a second to decoded audio and to masked mel batches, against the floor and other loaders.

The floor is what one core must do at least: decode, and for mel one torch STFT and one dense filter product a
clip.  Every contender reads the same clips, synthesised here; peers that are not installed are left out.

    python -m bench.loader [--quick] [--clips N] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
import webdataset
from torch.utils.data import DataLoader

from sharding.schema import MANIFEST
from training.data import (
    FRONT_ENDS,
    AudioInput,
    DataSettings,
    Loader,
    MaskingSettings,
    MixtureItem,
    Order,
)
from training.data.masking import Masking
from training.data.melbank import kaldi_bank

Run = Callable[[], object]
RATE, BATCH = 32000, 16
SETTINGS = DataSettings(
    train=(MixtureItem("bench"),),
    batch_size=BATCH,
    masking=MaskingSettings(time_masks=1, time_width=192, freq_masks=1, freq_width=48),
)
WAVES = AudioInput("waveform", RATE, 10.0, 10.0, 30.0)
MEL = AudioInput("passt", RATE, 10.0, 10.0, 30.0)


class Folder:
    """The bench's shards as the loader reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        with (self.root / path).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)


@dataclass(frozen=True)
class Clips:
    """Synthesised shards and their manifest rows."""

    table: pa.Table
    storage: Folder
    members: list[bytes]
    urls: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int)
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    count, rounds = args.clips or (192 if args.quick else 960), args.rounds or (3 if args.quick else 7)
    with tempfile.TemporaryDirectory() as folder:
        clips = synthesise(Path(folder), count)
        ratios = throughput(clips, rounds) | front_end_cost(clips, rounds) | reading(clips)
    ratios |= growth([1_000, 100_000] if args.quick else [1_000, 100_000, 10_000_000]) | shuffling()
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))


def synthesise(root: Path, count: int) -> Clips:
    """Clips of 10 s of shaped noise in tars of 64, with their manifest."""
    (root / "shards").mkdir()
    draw, rows, members, urls = np.random.default_rng(0), [], [], []
    envelope = np.sin(np.arange(10 * RATE) / RATE * 2) ** 2
    for first in range(0, count, 64):
        name = f"bench-all-{first // 64:06d}.tar"
        urls.append(str(root / "shards" / name))
        with tarfile.open(urls[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + 64, count)):
                noise = np.cumsum(draw.standard_normal(10 * RATE)) * 0.002
                file = io.BytesIO()
                wave = np.clip((noise - noise.mean()) * envelope, -1, 1)
                soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
                members.append(file.getvalue())
                rows.append(manifest_row(number, name, tar.offset + tarfile.BLOCKSIZE, len(members[-1])))
                text = json.dumps({"clip_id": rows[-1]["clip_id"], "captions": rows[-1]["captions"]}).encode()
                for ending, data in (("flac", members[-1]), ("json", text)):
                    info = tarfile.TarInfo(f"{rows[-1]['key']}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return Clips(pa.Table.from_pylist(rows, schema=MANIFEST), Folder(root), members, urls)


def manifest_row(number: int, shard: str, offset: int, size: int) -> dict[str, Any]:
    clip = f"bench/all/{number}"
    caption = {"text": f"sound {number}", "kind": "human", "onset": None, "offset": None, "source": None}
    values = {
        "key": clip.replace("/", "~"),
        "clip_id": clip,
        "windows": 1,
        "dataset": "bench",
        "split": "all",
        "shard": shard,
        "audio_offset": offset,
        "audio_bytes": size,
        "rate": RATE,
        "duration_s": 10.0,
        "captions": [caption],
        "group": clip,
        "kin": clip,
    }
    zeros = {field.name: 0 for field in MANIFEST if pa.types.is_integer(field.type)}
    return {field.name: None for field in MANIFEST} | zeros | {"start_s": 0.0} | values


def no_tokens(texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    nothing = torch.zeros(len(texts), 1, dtype=torch.int64)
    return {"input_ids": nothing, "attention_mask": nothing}


def decode(data: bytes) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(io.BytesIO(data), dtype="float32")[0])


def plain_mel(wave: torch.Tensor) -> torch.Tensor:
    """The floor: one torch STFT, one dense product."""
    window = torch.hann_window(800, periodic=False)
    power = torch.stft(wave, 1024, 320, 800, window, return_complex=True).abs().square()
    return kaldi_bank(128, 1024, RATE, 0.0, 15000.0).weights @ power


def floor(members: list[bytes], mel: bool) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        for data in members:
            wave = decode(data)
            if mel:
                plain_mel(wave)


def published_mel() -> Any:
    from hear21passt.models.preprocess import AugmentMelSTFT

    with contextlib.redirect_stdout(io.StringIO()):
        return AugmentMelSTFT(128, RATE, 800, 320, 1024, 48, 192, fmin_aug_range=10, fmax_aug_range=2000)


class Published:
    """The published way: a batch of waves through AugmentMelSTFT."""

    def __init__(self) -> None:
        self.mel = published_mel()

    def __call__(self, waves: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.mel(waves)


def tar_batches(urls: list[str], mel: bool) -> Any:
    """Webdataset's own pipeline over the same tars."""
    stages = [
        webdataset.SimpleShardList(urls),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.map(lambda sample: decode(sample["flac"])),
        webdataset.batched(BATCH, collation_fn=torch.stack),
    ]
    return webdataset.DataPipeline(*stages, *([webdataset.map(Published())] if mel else []))


def throughput(clips: Clips, rounds: int) -> dict[str, float]:
    """Clips a second of every contender; rounds are interleaved, and each keeps its best."""
    ratios: dict[str, float] = {}
    print(f"{'clips/s (10 s FLAC)':34} {'floor':>8} {'Earshot':>8} {'webdataset':>10}   share of the floor")
    for workers in (1, 2):
        for mel in (False, True):
            order = Order(clips.table, SETTINGS, 0)
            ours = Loader(clips, order, SETTINGS, MEL if mel else WAVES, no_tokens, workers=workers)
            tar = DataLoader(
                tar_batches(clips.urls, mel), batch_size=None, num_workers=workers, persistent_workers=True
            )
            with multiprocessing.get_context("fork").Pool(workers) as pool:
                parts = [(clips.members[worker::workers], mel) for worker in range(workers)]
                runs: dict[str, Run] = {
                    "floor": partial(pool.starmap, floor, parts, 1),
                    "ours": partial(replay, ours),
                    "webdataset": partial(drain, tar),
                }
                best = {name: len(clips.members) / seconds for name, seconds in race(runs, rounds).items()}
            what = f"{'masked mel' if mel else 'decoded audio'}, {workers} worker{'s' * (workers > 1)}"
            share, peer = best["ours"] / best["floor"], best["webdataset"] / best["floor"]
            print(
                f"{what:34} {best['floor']:8.0f} {best['ours']:8.0f} {best['webdataset']:10.0f}   "
                f"{share:.2f}, webdataset {peer:.2f}"
            )
            name = f"{'mel' if mel else 'audio'}_{workers}"
            ratios |= {f"{name}_of_floor": share, f"{name}_webdataset_of_floor": peer}
    return ratios


def replay(loader: Loader) -> None:
    drain(loader.epoch(0))


def drain(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def race(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Best seconds of each run, taken in turns so that a noisy moment meets all; one round to warm up."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def front_end_cost(clips: Clips, rounds: int) -> dict[str, float]:
    """Milliseconds a clip of the masked training spectrogram, against AugmentMelSTFT at its best batch size."""
    waves = torch.stack([decode(data) for data in clips.members[:BATCH]])
    lengths, seeds = torch.full((BATCH,), waves.shape[1]), torch.arange(BATCH)
    front_end, masking, published = FRONT_ENDS["passt"], Masking(SETTINGS.masking), Published()

    def ours() -> None:
        features = front_end(waves, lengths, torch.randint(2**40, (BATCH,)), True)
        masking(features, torch.full((BATCH,), features.shape[-1]), seeds, -1.4)

    def theirs(size: int) -> None:
        for at in range(0, BATCH, size):
            published(waves[at : at + size])

    contenders: dict[str, Run] = {"ours": ours}
    contenders |= {str(size): partial(theirs, size) for size in (1, 4, BATCH)}
    best = race(contenders, 5 * rounds)
    cost = {name: 1000 * seconds / BATCH for name, seconds in best.items()}
    peer = min(value for name, value in cost.items() if name != "ours")
    print(f"\nmasked mel, ms a clip: Earshot {cost['ours']:.2f}; AugmentMelSTFT " + ", ".join(
        f"{cost[str(size)]:.2f} (batch {size})" for size in (1, 4, BATCH)))  # fmt: skip
    return {"mel_speedup_over_augmentmelstft": peer / cost["ours"]}


def reading(clips: Clips) -> dict[str, float]:
    """Bytes read for every byte of audio used."""
    read = 0

    class Counting(Folder):
        def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
            nonlocal read
            data = super().read(path, offset, size)
            read += len(data)
            return data

    counted = Clips(clips.table, Counting(clips.storage.root), [], [])
    order = Order(clips.table, SETTINGS, 0)
    drain(Loader(counted, order, SETTINGS, WAVES, no_tokens, workers=0).epoch(0, 0, 4))
    used = sum(int(order.batch(0, step).size.sum()) for step in range(4))
    print(f"bytes read for a byte used: {read / used:.3f}")
    return {"bytes_read_per_byte_used": read / used}


def growth(sizes: list[int]) -> dict[str, float]:
    """Seconds from a manifest to a batch in the middle of epoch 3, and memory that the order adds."""
    out: dict[str, float] = {}
    for size in sizes:
        table = large_table(size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        order = Order(table, SETTINGS, 0)
        order.batch(3, order.steps_per_epoch // 2)
        seconds = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{size:>10,} rows: middle of epoch 3 after {seconds:.3f} s, peak memory +{grown:.0f} MiB")
        out[f"resume_s_{size}"] = seconds
    return out


def large_table(size: int) -> pa.Table:
    """A manifest of any size, column by column."""
    one = pa.Table.from_pylist([manifest_row(0, "bench-all-000000.tar", 512, 1)], schema=MANIFEST)
    table = pa.concat_tables([one] * min(size, 1000)).combine_chunks()
    table = pa.concat_tables([table] * (size // len(table)))
    ids = pa.array([f"bench/all/{number}" for number in range(len(table))])
    for name in ("key", "clip_id", "group", "kin"):
        table = table.set_column(table.column_names.index(name), name, ids)
    return table


def shuffling() -> dict[str, float]:
    """Kolmogorov distance between neighbours' distances after shuffling and those in a true permutation."""
    size = 200_000
    table = large_table(size)
    places = np.argsort(Order(table, SETTINGS, 0).rows(0))
    distances = np.sort(np.abs(np.diff(places)))
    gap = float(np.abs(1 - (1 - distances / size) ** 2 - np.arange(1, len(distances) + 1) / len(distances)).max())
    print(f"shuffle of {size:,} rows: Kolmogorov distance of neighbours' distances to a permutation's {gap:.3f}")
    return {"shuffle_kolmogorov": gap}


if __name__ == "__main__":
    main()
