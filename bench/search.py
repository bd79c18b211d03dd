"""Measures a search in an index: how fast it answers after its start and from a cold one, its recall, and its memory.

Vectors are synthetic: 2,000 clusters of sounds, and descriptions that lie beside them, as the two modalities of a
trained model do.  All else is real: the files of an index, its inverted lists, and the text tower of a dual encoder
with MiniLM (or, where EARSHOT_MODELS does not name it, a random encoder).  Queries run on one core.  Times are CPU time
of the process, so that other work of the machine does not count; memory includes the mapped files that were read.

    python -m bench.search [--quick] [--sizes N ...] [--width D] [--out FOLDER]

``cold`` is ``earshot search INDEX TEXT`` as a command, from its start to its end; ``median`` and ``95 %`` are
`Finder.find` in a running process, with the vector of the text; ``recall`` is the share of the ten best entries, found
by comparing every vector, that a search finds, on descriptions that no list was tuned on.  Filters leave a tenth of the
entries, drawn at random, or one hundredth, those of twenty clusters.  ``own`` is memory of the process alone, without
mapped files.  With ``--out`` the indexes stay there and are used again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.search.entries import ENTRIES, Filter
from training.search.nearest import EXACT_UP_TO, best_of, make_lists, nearest
from training.search.store import SoundIndex, commit, hold, write_entries, write_file

CLUSTERS = 2000
SPREAD, GAP = 0.8, 0.6  # of the entries around their cluster; how far descriptions lie from sounds
TUNED_WITH, TESTED_WITH, TIMED_WITH = 200, 200, 40
BLOCK = 1 << 17
Datasets = tuple[str, ...]
FILTERS: dict[str, Datasets] = {"all": (), "a tenth": ("tenth",), "a corner": ("corner",)}  # what each of them leaves
IN_CORNER = CLUSTERS // 100  # clusters whose entries are of the dataset corner
CHILD = """
import json, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from training.search.entries import Filter
from training.search.finding import Finder, Query
from training.search.store import SoundIndex
from training.search.text_tower import IndexModel
index = SoundIndex.open(sys.argv[1])
finder = Finder(index, IndexModel(index, lambda: sys.exit("the whole model was loaded")))
found = {}
for name, datasets in json.loads(sys.argv[3]).items():
    times = []
    for number in range(int(sys.argv[2])):
        start = time.process_time()
        finder.find(Query((f"a dog barks {number} times while it rains",)), among=Filter(tuple(datasets)))
        times.append(1000 * (time.process_time() - start))
    first, *times = times
    times = sorted(times)
    found[name] = {"first_ms": first, "median_ms": times[len(times) // 2], "most_ms": times[int(0.95 * len(times))]}
status = dict(line.split(":") for line in open("/proc/self/status"))
memory = {name: int(status[field].split()[0]) / 1024 for name, field in (("mb", "VmHWM"), ("own_mb", "RssAnon"))}
print(json.dumps({"times": found} | memory))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 entries: shows that it runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 400_000], metavar="N", help="entries")
    parser.add_argument("--width", type=int, default=512, metavar="D", help="numbers of a vector (512)")
    parser.add_argument("--out", type=Path, help="keep the indexes here (default: a temporary folder)")
    args = parser.parse_args()
    head = ("finds by", "among", "recall", "first", "median", "95 %", "cold", "memory", "own", "disk")
    print("{:>11}  {:20} {:9} {:>6} {:>8} {:>8} {:>8} {:>7} {:>9} {:>8} {:>9}".format("entries", *head))
    with tempfile.TemporaryDirectory() as temporary:
        for size in [2000] if args.quick else args.sizes:
            folder = (args.out or Path(temporary)) / f"{size}-{args.width}"
            made = None if (folder / "index.json").is_file() else make_apart(size, args.width, folder)
            show(size, measure(args.width, folder))
            if made is not None and size > EXACT_UP_TO:
                took = f"its lists took {made['minutes']:.1f} minutes and {made['mb']:.0f} MB to make"
                print(f"{'':11}  {took}", flush=True)


def show(size: int, row: dict[str, Any]) -> None:
    """Print the figures of an index, a line for each filter."""
    for name, times in row["times"].items():
        line = f"{size:11,}  {row['how']:20} {name:9} {row['recall'][name]:6.3f} {times['first_ms']:5.0f} ms "
        line += f"{times['median_ms']:5.0f} ms {times['most_ms']:5.0f} ms "
        if name == next(iter(FILTERS)):
            line += f"{row['cold_s']:5.2f} s {row['mb']:6.0f} MB {row['own_mb']:5.0f} MB {row['disk_mb']:6.0f} MB"
        print(line, flush=True)


def measure(width: int, folder: Path) -> dict[str, Any]:
    """The figures of an index."""
    index = SoundIndex.open(folder)
    search = index.about["search"]
    figures: dict[str, Any] = {"recall": {name: recall(index, width, names) for name, names in FILTERS.items()}}
    figures["how"] = "every vector" if index.lists is None else f"{search['probes']} of {search['lists']} lists"
    figures["disk_mb"] = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    child = [sys.executable, "-c", CHILD, str(folder), str(TIMED_WITH), json.dumps(FILTERS)]
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures |= json.loads(done.stdout)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "training", "search", str(folder), "a dog barks"]
    subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return figures | {"cold_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def recall(index: SoundIndex, width: int, datasets: Datasets) -> float:
    """The share of the ten best entries of some datasets that searches find."""
    queries = descriptions(TESTED_WITH, width, seed=2)
    mask = Filter(datasets).mask(index.entries)
    rows = np.arange(len(index.vectors)) if mask is None else np.flatnonzero(mask)
    best = rows[best_of(index.vectors if mask is None else index.vectors[rows], queries, 10)]
    found = [nearest(index.vectors, query, 10, index.lists, mask)[0] for query in queries]
    return float(np.mean([np.isin(wanted, one).mean() for wanted, one in zip(best, found, strict=True)]))


def make_apart(size: int, width: int, folder: Path) -> dict[str, float]:
    """Run `make` in a process of its own, whose memory is measured."""
    words = "import sys; from pathlib import Path; from bench.search import make; "
    words += "make(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    child = [sys.executable, "-c", words, str(size), str(width), str(folder)]
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make(size: int, width: int, folder: Path) -> None:
    """Write an index of synthetic vectors with a real text tower; prints what its lists took.

    Memory is what the process itself holds (anonymous memory), because pages of mapped files can be given back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    centres, clusters = cluster_centres(width), draw.integers(CLUSTERS, size=size)
    figures: dict[str, float] = {}
    names = ["entries-bench.arrow", "vectors-bench.npy"]

    def write_vectors(path: Path) -> None:
        out = np.lib.format.open_memmap(path, "w+", np.float32, (size, width))
        for begin in range(0, size, BLOCK):
            count = min(BLOCK, size - begin)
            chosen = centres[clusters[begin : begin + count]]
            out[begin : begin + count] = unit(chosen + SPREAD * noise(draw, count, width))
        out.flush()

    write_file(folder / names[0], lambda path: write_entries(path, entry_batches(clusters)))
    write_file(folder / names[1], write_vectors)
    about: dict[str, Any] = {"model": "0" * 32, "model_path": "", "entries": size, "parts": {}, "width": width}
    about |= {"recordings": size, "seconds": 10.0 * size, "shards": "", "plan": ""}
    about |= {"windows": {"length_s": 10.0, "hop_s": 5.0}, "search": {"kind": "exact"}}
    if size > EXACT_UP_TO:
        names.append("lists-bench.faiss")
        vectors = np.load(folder / names[1], mmap_mode="r")
        tuned = descriptions(TUNED_WITH, width, seed=1)

        def write_lists(path: Path) -> None:
            about["search"] = {"kind": "lists", **make_lists(vectors, tuned, path)}

        began = time.process_time()
        with own_memory() as peak:
            write_file(folder / names[-1], write_lists)
        figures = {"minutes": (time.process_time() - began) / 60, "mb": max(peak) / 1024}
    with hold(folder):
        commit(folder, about, names)
    add_tower(folder, width)
    print(json.dumps(figures))


@contextlib.contextmanager
def own_memory() -> Iterator[list[int]]:
    """Anonymous memory of this process in KiB, looked at ten times a second until the block ends."""
    seen, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            status = Path("/proc/self/status").read_text()
            seen.append(int(status.split("RssAnon:")[1].split()[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def add_tower(folder: Path, width: int) -> None:
    """Put a real text tower into the index."""
    from training.config.loading import parse_recipe
    from training.search.text_tower import add_text_tower
    from training.tasks.retrieval import blank

    mini = Path(os.environ.get("EARSHOT_MODELS", "../shared/models")) / "all-MiniLM-L6-v2"
    text: dict[str, Any] = {"encoder": "bert", "source": str(mini), "pooling": "mean"}
    if not mini.is_dir():
        text = {"encoder": "roberta", "source": "random", "width": 384, "depth": 6, "heads": 12, "vocabulary": 300}
    tree = {
        "audio": {"encoder": "passt", "variant": "custom", "source": "random", "width": 16, "depth": 1, "heads": 2},
        "text": text,
        "head": {"name": "dual", "dim": width},
        "loss": {"name": "ntxent"},
        "data": {"train": [{"split": "bench/train"}]},
        "optimizer": {"clip": 1.0, "lr": 1e-3, "epochs": 1, "warmup_epochs": 0},
    }
    reason = add_text_tower(blank(parse_recipe(tree, "bench/search.py"), ["a dog barks", "rain"]), folder)
    if reason is not None:
        raise SystemExit(f"the index has no text tower: {reason}")


def entry_batches(clusters: np.ndarray) -> Iterator[pa.RecordBatch]:
    """ENTRIES with facts such as a build has; ``clusters [entries]`` says where their vectors lie."""
    datasets = pa.array(["corner", "tenth", "bench"])
    same: dict[str, Any] = {"audio_sha256": "0" * 64, "end_s": 10.0, "recording_s": 10.0, "sample_s": 10.0}
    same |= {"rate": 32000, "audio_bytes": 300_000, "split": "train", "shard": "bench-train-000000.tar"}
    same |= {"licence": "http://creativecommons.org/licenses/by/4.0/"}
    for begin in range(0, len(clusters), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(clusters)))
        codes = np.where(clusters[rows] < IN_CORNER, 0, np.where(rows % 10 == 0, 1, 2)).astype(np.int32)
        numbers = pc.cast(pa.array(rows), pa.string())
        captions = pc.binary_join_element_wise("A dog barks ", numbers, " times while rain falls on a roof.", "")
        values: dict[str, Any] = {
            "clip_id": pc.binary_join_element_wise("bench/train/clip ", numbers, ""),
            "key": pc.binary_join_element_wise("clip ", numbers, ""),
            "path": pc.binary_join_element_wise("/archive/bench/audio/clip ", numbers, ".wav", ""),
            "captions": pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32), captions),
            "audio": pc.binary_join_element_wise("clip ", numbers, ".flac", ""),
            "dataset": pa.DictionaryArray.from_arrays(codes, datasets),
        }
        for field in ENTRIES:
            if field.name in values:
                continue
            value = same.get(field.name, 0)
            if pa.types.is_dictionary(field.type):
                values[field.name] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), pa.array([value]))
            else:
                values[field.name] = pa.repeat(pa.scalar(value, field.type), len(rows))
        yield pa.RecordBatch.from_arrays([values[name] for name in ENTRIES.names], schema=ENTRIES)


def cluster_centres(width: int) -> np.ndarray:
    """Unit vectors ``[CLUSTERS, width]``, the same in every process."""
    return unit(np.random.default_rng(7).standard_normal((CLUSTERS, width)).astype(np.float32))


def descriptions(count: int, width: int, seed: int) -> np.ndarray:
    """Vectors of descriptions ``[count, width]``: around clusters, but all moved in one direction."""
    draw = np.random.default_rng(seed)
    centres = cluster_centres(width)[draw.integers(CLUSTERS, size=count)]
    away = unit(np.random.default_rng(8).standard_normal((1, width)).astype(np.float32))
    return unit(centres + SPREAD * noise(draw, count, width) + GAP * away)


def noise(draw: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random vectors of about length 1, ``[count, width]``."""
    return draw.standard_normal((count, width), np.float32) / np.float32(np.sqrt(width))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
