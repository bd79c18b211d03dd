"""Measures what joining fingerprints costs by number of clips, on simulated collections with planted copies.

    python -m bench.join --clips 500000      the size of WavCaps, 7,563 hours: about 14 GB of scratch

A simulated clip is a series of passages of real codes, each with a bit mask of its own, so that codes last and change
as real ones do.  Three bits are the same everywhere.  So unrelated clips coincide eight times as often as uniform codes
would, as real recordings do (docs/DEDUPLICATION.md).  One clip in a hundred has codes from a small pool, like a hum.
One in a hundred holds the same effect of 2 s.  One in twenty is an excerpt of another clip with 2 % of the bits wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sharding.dedup.candidates import JoinSettings, join
from sharding.dedup.fingerprint import HOP_S, INFORMATIVE, RATE, WEAKEST_SHIFT, fingerprint
from sharding.schema import FINGERPRINTS
from tests.sharding.dedup import hard_cases

MEAN_S = 54.4  # of WavCaps
CONSTANT_BITS = np.uint32(0b111)
PASSAGE = 400  # hops
TABLE = 500  # clips


class Simulation:
    """Simulated fingerprints of ``clips`` clips, the same in every run.

    ``copies`` says for each copy which clip it was cut from, and at which offset in hops.
    """

    def __init__(self, clips: int) -> None:
        rng = np.random.default_rng(0)
        scenes = [hard_cases.scene(rng, 30) for _ in range(8)]
        self.base = np.concatenate([fingerprint(wave, hard_cases.RATE).codes for wave in scenes])
        self.lengths = np.clip(rng.lognormal(np.log(MEAN_S) - 0.5, 1.0, clips) / HOP_S, 80, 2_000_000).astype(np.int64)
        self.hops = int(self.lengths.sum())
        self.copies: dict[int, tuple[int, int]] = {}
        for copy in range(19, clips, 20):
            original = int(rng.integers(0, copy // 20 * 20 + 1))
            if original % 20 != 19 and self.lengths[original] > 300:
                length = int(rng.integers(240, min(2400, self.lengths[original])))
                self.copies[copy] = (original, int(rng.integers(0, self.lengths[original] - length)))
                self.lengths[copy] = length

    def codes(self, clip: int) -> np.ndarray:
        rng = np.random.default_rng([1, clip])
        if clip in self.copies:
            original, offset = self.copies[clip]
            codes = self.codes(original)[offset : offset + self.lengths[clip]].copy()
            wrong = rng.random((len(codes), 32)) < 0.02
            return codes ^ np.packbits(wrong, axis=1, bitorder="little").view("<u4")[:, 0]
        length = int(self.lengths[clip])
        passages = length // PASSAGE + 1
        starts = rng.integers(0, len(self.base) - PASSAGE, passages)
        index = (starts[:, None] + np.arange(PASSAGE)).ravel()[:length]
        masks = rng.integers(0, 2**32, passages, dtype=np.uint32)
        codes = self.base[index] ^ np.repeat(masks, PASSAGE)[:length]
        if clip % 100 == 7:
            codes = self.base[rng.integers(0, 2000, length // 8 + 1)].repeat(8)[:length]
        if clip % 100 == 8 and length > 400:
            codes[200:360] = self.base[1000:1160]
        return codes & ~CONSTANT_BITS

    def tables(self) -> Iterator[pa.Table]:
        clips = len(self.lengths)
        for first in range(0, clips, TABLE):
            rows = []
            for clip in range(first, min(first + TABLE, clips)):
                codes = self.codes(clip)
                flags = np.random.default_rng([2, clip]).integers(0, 32, len(codes), dtype=np.uint8) << WEAKEST_SHIFT
                rows.append(
                    {"clip_id": f"{clip:08d}", "codes": codes.tobytes(), "flags": (flags | INFORMATIVE).tobytes()}
                )
            yield pa.Table.from_pylist(rows, FINGERPRINTS)


def measure(clips: int, workers: int, scratch: str | None) -> dict[str, float]:
    simulation = Simulation(clips)
    order = {f"{clip:08d}": clip for clip in range(clips)}
    settings = JoinSettings(scratch=scratch)
    making = [0.0, 0.0]  # seconds and CPU seconds of the simulation, which are subtracted

    def made() -> Iterator[pa.Table]:
        tables = simulation.tables()
        while True:
            start, cpu = time.perf_counter(), time.process_time()
            table = next(tables, None)
            making[0] += time.perf_counter() - start
            making[1] += time.process_time() - cpu
            if table is None:
                return
            yield table

    start, cpu = time.perf_counter(), _cpu_seconds()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        found = join(
            made(), order, np.zeros(clips, bool), np.ones(clips, bool), settings, pool.imap_unordered, simulation.hops
        )
        pool.close()
        pool.join()
    took, cpu = time.perf_counter() - start - making[0], _cpu_seconds() - cpu - making[1]
    pairs = set(zip(found["a"].tolist(), found["b"].tolist(), strict=True))
    hits = sum((min(o, c), max(o, c)) in pairs for c, (o, _) in simulation.copies.items())
    own, children = (
        resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "clips": clips,
        "hours": simulation.hops * HOP_S / 3600,
        "seconds": took,
        "cpu_seconds": cpu,
        "candidates": len(pairs),
        "recall": hits / max(1, len(simulation.copies)),
        "GiB": own + workers * children,
    }


def _cpu_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def plot(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.loglog([row["clips"] for row in rows], [row["cpu_seconds"] for row in rows], "o-")
    axes.set(xlabel="clips", ylabel="CPU seconds", title="joining fingerprints")
    axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--clips", type=int, default=50_000, help="the largest collection")
    parser.add_argument("--only-largest", action="store_true", help="no smaller ones before it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", help="folder for what does not fit into memory")
    parser.add_argument("--plot", type=Path, default=Path(__file__).parent / "out/join.png")
    args = parser.parse_args()
    largest = 2000 if args.quick else args.clips
    sizes = [largest] if args.only_largest else [largest // 16, largest // 4, largest]
    print(f"{RATE} Hz codes, one every {HOP_S * 1000:g} ms; {args.workers} processes")
    print(f"{'clips':>8} {'hours':>8} {'seconds':>8} {'CPU s':>8} {'candidates':>11} {'recall':>7} {'GiB':>6}")
    rows = []
    for clips in sizes:
        rows.append(measure(clips, args.workers, args.scratch))
        print(
            f"{clips:8,d} {rows[-1]['hours']:8,.0f} {rows[-1]['seconds']:8.1f} {rows[-1]['cpu_seconds']:8.1f} "
            f"{rows[-1]['candidates']:11,.0f} {rows[-1]['recall']:7.4f} {rows[-1]['GiB']:6.2f}",
            flush=True,
        )
    if len(rows) > 1:
        plot(rows, args.plot)
    growth = (
        np.log(rows[-1]["cpu_seconds"] / rows[0]["cpu_seconds"]) / np.log(sizes[-1] / sizes[0]) if len(rows) > 1 else 1
    )
    print(json.dumps(rows[-1] | {"exponent": round(float(growth), 3)}))


if __name__ == "__main__":
    main()
