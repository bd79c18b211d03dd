"""Measures what grows with the dataset, and what shuffling costs, on manifests of any size without sound.

    python -m bench.loading.growth ROWS

opens a manifest of so many rows in a process of its own, and prints a JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.loading.clips import RATE, Clips, manifest_row, no_tokens, synthesise
from sharding.common.storage import Storage
from sharding.schema import MANIFEST
from training.data import AudioInput, DataSettings, Loader, MixtureItem, Order, ShuffleSettings
from training.data.samples import byte_ranges

CHUNK = 1000  # rows of a shard, as a manifest has them
CLIP_BYTES, OTHER_BYTES = 400_000, 2048  # of 10 s of FLAC; of JSON and headers between two clips
SETTINGS = DataSettings(train=(MixtureItem("bench"),), batch_size=64)


def large_table(size: int, clips: Clips | None = None) -> pa.Table:
    """A manifest of any size; its rows point at the sound of ``clips`` in turn, or at no sound."""
    if clips is None:
        rows = [
            manifest_row(n, "bench-all-000000.tar", n * (CLIP_BYTES + OTHER_BYTES), CLIP_BYTES) for n in range(CHUNK)
        ]
    else:
        known = clips.table.to_pylist()
        rows = [known[n % len(known)] for n in range(CHUNK)]
    chunk = pa.Table.from_pylist(rows, schema=MANIFEST).combine_chunks()
    table = pa.concat_tables([chunk] * (size // CHUNK))
    numbers = pa.array(np.arange(len(table))).cast(pa.string())
    ids = pc.binary_join_element_wise("bench/all/", numbers, "")
    for name in ("key", "clip_id", "group", "kin"):
        table = table.set_column(table.column_names.index(name), name, ids)
    if clips is None:
        shards = pc.binary_join_element_wise("s", pa.array(np.arange(len(table)) // CHUNK).cast(pa.string()), "")
        table = table.set_column(table.column_names.index("shard"), "shard", shards)
    return table


def private_mib(process: int) -> float:
    """Memory that belongs to a process alone."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure(size: int) -> dict[str, float]:
    """A run that starts in the middle of epoch 3.

    Returns:
        processor seconds of its order and first request, seconds to the first batch, MiB of the rank and of its worker.
    """
    with tempfile.TemporaryDirectory() as folder:
        clips = synthesise(Path(folder), 64)
        table = large_table(size, clips)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, start_processor = time.perf_counter(), time.process_time()
        order = Order(table, SETTINGS, 0)
        middle = order.steps_per_epoch // 2
        order.batch(3, middle)
        ordered = time.process_time() - start_processor
        manifest = Clips(table, Storage(folder), [], [], [])
        audio = AudioInput("samples", RATE, 10.0, 10.0, 30.0)
        batches = Loader(manifest, order, SETTINGS, audio, no_tokens, workers=1).epoch(3, middle)
        next(batches)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (worker,) = multiprocessing.active_children()
        return {
            "order_s": ordered,
            "first_batch_s": seconds,
            "rank_mib": (after - before) / 1024,
            "worker_mib": private_mib(worker.pid or os.getpid()),
        }


def growth(sizes: list[int]) -> dict[str, float]:
    """``measure`` of every size, each in a process of its own."""
    out: dict[str, float] = {}
    print(f"\n{'manifest rows':>14} {'order, CPU s':>13} {'first batch, s':>15} {'rank, +MiB':>11} {'worker, MiB':>12}")
    for size in sizes:
        command = [sys.executable, "-m", "bench.loading.growth", str(size)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(result.stdout.splitlines()[-1])
        print(
            f"{size:>14,} {found['order_s']:>13.2f} {found['first_batch_s']:>15.2f} "
            f"{found['rank_mib']:>11.0f} {found['worker_mib']:>12.0f}"
        )
        out |= {f"first_batch_s_{size}": found["first_batch_s"], f"worker_mib_{size}": found["worker_mib"]}
    return out


@dataclass(frozen=True)
class Shuffled:
    """The figures of one way of shuffling.

    Attributes:
        gap: Kolmogorov distance between neighbours' distances after shuffling and those of a true permutation.
        mean: their mean, as a share of a true permutation's.
        requests: reads a clip (samples that lie together are read at once).
        read: bytes read for a byte of audio used.
        spread: MiB of shards between which the next draws are chosen: what a cache would hold.
    """

    gap: float
    mean: float
    requests: float
    read: float
    spread: float


def shuffled(table: pa.Table, way: ShuffleSettings, steps: int = 20) -> Shuffled:
    """Measure one way of shuffling on a manifest."""
    order = Order(table, replace(SETTINGS, shuffle=way), 0)
    size = order.draws_per_epoch
    distances = np.sort(np.abs(np.diff(np.argsort(order.rows(0)))))
    # |i - j| of two random positions: P(distance <= d) = 1 - (1 - d / n)^2, mean n / 3
    gap = np.abs(1 - (1 - distances / size) ** 2 - np.arange(1, len(distances) + 1) / len(distances)).max()
    batches = [order.batch(0, step) for step in range(steps)]
    reads = [run for draws in batches for run in byte_ranges(draws)]
    used = sum(int(draws.size.sum()) for draws in batches)
    return Shuffled(
        gap=float(gap),
        mean=float(distances.mean() / (size / 3)),
        requests=len(reads) / (steps * SETTINGS.batch_size),
        read=sum(run.end - run.begin for run in reads) / used,
        spread=min(way.window, size) * (CLIP_BYTES + OTHER_BYTES) / 2**20,
    )


def shuffling(size: int) -> dict[str, float]:
    """Good mixing against reads in runs, for several windows and lengths of runs."""
    table = large_table(size)
    print(f"\nshuffle of {size:,} clips of 10 s, batches of {SETTINGS.batch_size}")
    heads = ("Kolmogorov", "mean", "reads/clip", "bytes/used", "MiB in use")
    print(f"{'window':>9} {'run':>4} " + " ".join(f"{head:>11}" for head in heads))
    for window, run in ((256, 32), (2048, 32), (2048, 256), (16384, 32), (131072, 32), (131072, 256), (2**20, 32)):
        one = shuffled(table, ShuffleSettings(run=run, window=window))
        print(
            f"{window:>9} {run:>4} {one.gap:>11.3f} {one.mean:>11.3f} {one.requests:>11.3f} {one.read:>11.4f} "
            f"{one.spread:>11,.0f}"
        )
    default = shuffled(table, ShuffleSettings())
    return {
        "shuffle_kolmogorov": default.gap,
        "reads_per_clip": default.requests,
        "bytes_read_per_byte_used": default.read,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
