"""Measures what it takes to list the windows of a build for an index, and to filter them: time and memory.

The rows are synthetic and as a build has them: samples of 20 s with two captions each, so three windows of 10 s.  Times
are CPU time of the process; memory is anonymous memory on top of that of the rows themselves, because pages of mapped
files can be given back.

    python -m bench.entries [--quick] [--samples N ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from bench.search import own_memory
from sharding.schema import MANIFEST
from training.search.entries import Filter, Windows, entry_batches, parts_of
from training.search.store import read_entries, write_entries

BLOCK = 20_000  # rows that are made at once
A_SHARD = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 samples: shows that it runs")
    parser.add_argument("--samples", type=int, nargs="+", default=[50_000, 200_000], metavar="N")
    args = parser.parse_args()
    print(f"{'samples':>9} {'windows':>9} {'listing':>9} {'memory':>8} {'parts':>8} {'filter':>9} {'on disk':>16}")
    for count in [2000] if args.quick else args.samples:
        measure(count)


def measure(count: int) -> None:
    """List the windows of a number of samples, and print the time and memory that it takes."""
    samples = pa.concat_tables([rows(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entries.arrow"
        with own_memory() as seen:
            time.sleep(0.3)
            before, began = seen[-1], time.process_time()
            write_entries(path, entry_batches(samples, {}, Windows(10.0, 5.0)))
            listed = time.process_time()
            entries = read_entries(path)
            parts = parts_of(entries)
            cut = time.process_time()
            mask = Filter(datasets=("tenth",), licences=("CC0",)).mask(entries)
            filtered = time.process_time()
        assert mask is not None and parts[-1].end == len(entries) == len(mask)
        memory, size = (max(seen) - before) / 1024, path.stat().st_size
        print(
            f"{count:9,} {len(entries):9,} {listed - began:7.1f} s {memory:5.0f} MB {cut - listed:6.1f} s "
            f"{1000 * (filtered - cut):6.0f} ms {size / 1e6:6.0f} MB, {size / len(entries):.0f} B each",
            flush=True,
        )


def rows(begin: int, end: int) -> pa.Table:
    """Rows of MANIFEST."""
    numbers = range(begin, end)
    text = "A dog barks {} times while rain falls on a roof, said in the way {}"
    captions = [[{"text": text.format(n, way), "kind": "human"} for way in range(2)] for n in numbers]
    values = {
        "clip_id": [f"bench/train/clip {n}" for n in numbers],
        "key": [f"clip {n}" for n in numbers],
        "dataset": ["tenth" if n % 10 == 0 else "bench" for n in numbers],
        "split": ["train"] * len(numbers),
        "shard": [f"bench-train-{n // A_SHARD:06d}.tar" for n in numbers],
        "audio": [f"clip {n}.flac" for n in numbers],
        "audio_offset": [300_000 * (n % A_SHARD) for n in numbers],
        "audio_bytes": [300_000] * len(numbers),
        "audio_sha256": [f"{n:064x}" for n in numbers],
        "rate": [32000] * len(numbers),
        "duration_s": [20.0] * len(numbers),
        "captions": captions,
        "licence": ["CC0" if n % 2 else "CC-BY" for n in numbers],
    }
    columns = [pa.array(values.get(field.name, [None] * len(numbers)), field.type) for field in MANIFEST]
    return pa.table(columns, schema=MANIFEST)


if __name__ == "__main__":
    main()
