"""Measures what decisions and plans cost by number of clips, on synthesised tables like those of WavCaps.

    python -m bench.planning --clips 500000      the size of WavCaps and all the others

One clip in forty is broken, one in fifty protected, and every fifth has evidence about another clip.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.build.stages import batches
from sharding.catalogue.overview import overview
from sharding.fates.decide import FateSettings, decide
from sharding.schema import CATALOGUE, FACTS, INPUTS, MATCHES
from sharding.settings import BuildSettings
from sharding.shards.plan import PlanSettings, make_plan, plan_hash, shard_hash, with_keys

DECODING_S = 0.015  # processor seconds that one clip of 10 s takes to decode, resample, encode and fingerprint
SETTINGS = FateSettings(protect=frozenset({("wavcaps", "test")}))


def clip_id(number: int) -> str:
    return f"wavcaps/FreeSound/{number:07d}"


def filled(schema: pa.Schema, clips: int, columns: dict[str, list[Any]]) -> pa.Table:
    """A table of ``schema`` with these columns; all other columns are null."""
    empty = pa.nulls(clips)
    return pa.table(
        [pa.array(columns[field.name], field.type) if field.name in columns else empty.cast(field.type)
         for field in schema], schema=schema,
    )  # fmt: skip


def catalogue(clips: int) -> pa.Table:
    caption = {"kind": "machine", "onset": None, "offset": None, "source": None}
    numbers = range(clips)
    return filled(
        CATALOGUE,
        clips,
        {
            "clip_id": [clip_id(n) for n in numbers],
            "dataset": ["wavcaps"] * clips,
            "part": ["FreeSound"] * clips,
            "split": ["train" if n % 50 else "test" for n in numbers],
            "path": [f"FreeSound/{n}.flac" for n in numbers],
            "captions": [
                [caption | {"text": f"Dog {n} barks while rain falls on tin roof {n % 977}"}] for n in numbers
            ],
            "identity": [f"freesound:{n}" for n in numbers],
            "keywords": [["dog", "rain"]] * clips,
            "published_duration_s": [10.0] * clips,
            "notes": [[]] * clips,
        },
    )


def facts(clips: int) -> pa.Table:
    window = {"window": 0, "start_s": 0.0, "duration_s": 10.0, "bytes": 300_000}
    numbers = range(clips)
    windows = [
        [window | {"pack": f"{n // 64:06d}.pack", "offset": n % 64 * 300_000, "sha256": f"{n:064x}"}] for n in numbers
    ]
    return filled(
        FACTS,
        clips,
        {
            "clip_id": [clip_id(n) for n in numbers],
            "error": [None if n % 40 else "not_audio" for n in numbers],
            "source_sha256": [f"{n:064x}" for n in numbers],
            "source_rate": [32000] * clips,
            "duration_s": [10.0] * clips,
            "bandwidth_hz": [12000.0] * clips,
            "copied": [True] * clips,
            "ext": ["flac"] * clips,
            "windows": windows,
        },
    )


def matches(clips: int) -> pa.Table:
    rng = np.random.default_rng(0)
    pairs = np.sort(rng.integers(0, clips, (clips // 5, 2)), axis=1)
    rows = []
    for first, second in pairs[pairs[:, 0] < pairs[:, 1]].tolist():
        pair = {"a": clip_id(first), "b": clip_id(second), "offset_s": 0.0, "overlap_s": 9.9}
        rows.append(pair | {"method": "fingerprint", "score": 20.0, "outcome": "undecided"})
        rows.append(pair | {"method": "waveform", "score": 0.99, "outcome": "different" if first % 3 else "same"})
    return pa.Table.from_pylist(rows, MATCHES)


def measure(clips: int) -> dict[str, float]:
    """Processor seconds of each step, and the peak of memory in GiB, the tables included but not their synthesis."""
    tables = catalogue(clips), facts(clips), matches(clips)
    forget_peak()
    spent: dict[str, float] = {"clips": clips}

    def step(name: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        result = work()
        spent[name] = time.process_time() - begun
        return result

    def plan() -> str:
        digests, samples = {}, []
        for shard, rows in make_plan(tables[0], tables[1], fates, tables[2], PlanSettings(), 32000):
            digests[shard] = shard_hash(rows)
            samples.append(rows.select(["clip_id", "key"]))
        with_keys(fates, samples)
        return plan_hash(digests)

    unknown = [pa.nulls(clips, kind) for kind in INPUTS.types[1:]]
    inputs = pa.Table.from_arrays([tables[0]["clip_id"].combine_chunks(), *unknown], schema=INPUTS)
    step("batches", lambda: batches(tables[0], inputs, 0))
    fates = step("fates", lambda: decide(*tables, (), SETTINGS))
    step("plan", plan)
    step("overview", lambda: overview(tables[0], tables[1], {}, BuildSettings(fates=SETTINGS)))
    spent["GiB"] = peak_gib()
    return spent


def forget_peak() -> None:
    """Give freed memory back, and let the kernel measure the peak of this process from here on."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """The largest memory of this process since ``forget_peak``."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--clips", type=int, default=100_000, help="the largest collection")
    args = parser.parse_args()
    largest = 16_000 if args.quick else args.clips
    sizes = [largest // 4, largest]
    print(f"{'clips':>8} {'batches':>8} {'fates':>8} {'plan':>8} {'overview':>9}  CPU s {'ms/clip':>8} {'GiB':>6}")
    costs = []
    for clips in sizes:
        row = measure(clips)
        costs.append(sum(row[name] for name in ("batches", "fates", "plan", "overview")) / clips)
        print(
            f"{clips:8,d} {row['batches']:8.2f} {row['fates']:8.2f} {row['plan']:8.2f} {row['overview']:9.2f}        "
            f"{1000 * costs[-1]:8.3f} {row['GiB']:6.2f}",
            flush=True,
        )
    growth = 1 + np.log(costs[-1] / costs[0]) / np.log(sizes[-1] / sizes[0])
    share = costs[-1] / DECODING_S
    print(json.dumps({"clips": largest, "exponent": round(float(growth), 3), "share_of_decoding": round(share, 4)}))


if __name__ == "__main__":
    main()
