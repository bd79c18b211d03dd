"""Measures what `python -m ray_jobs plan` assumes about shards, and how far it errs on a real build.

    EARSHOT_DATA=FOLDER python -m bench.plan [--quick] [--clips N]

N real recordings (`clips.csv` of EARSHOT_DATA) are built with one worker.  The bench prints the bytes of a shard
for each second of sound, and compares the processor time and the bytes of the build with the plan's spans.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ray_jobs.costs import Nodes, build_cost
from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, help="recordings to build (400)")
    args = parser.parse_args()
    data = Path(os.environ["EARSHOT_DATA"]) / "audio"
    clips = recordings(data)
    found = build_recordings(data, clips[: args.clips or (60 if args.quick else 400)])
    rates = found.sizes / found.seconds
    print(f"{len(rates)} samples, {found.seconds.sum():.0f} s; bytes for each second of sound:")
    print(
        "  5, 25, 50, 75, 95 %: "
        + ", ".join(f"{each:,.0f}" for each in np.quantile(rates, [0.05, 0.25, 0.5, 0.75, 0.95]))
    )
    print(f"  all together {found.sizes.sum() / found.seconds.sum():,.0f}")
    low, high = found.planned["hours"].times(3600)
    print(f"build: {found.processor_s:.1f} s of processor time; the plan said {low:.1f} to {high:.1f} s")
    low, high = found.planned["shard_bytes"].times(1e-6)
    print(f"shards: {found.sizes.sum() / 1e6:.1f} MB; the plan said {low:.1f} to {high:.1f} MB")


def recordings(data: Path) -> list[dict[str, str]]:
    """The rows of ``clips.csv`` whose sound file is there, in an order drawn at random."""
    with (data / "clips.csv").open(encoding="utf-8") as file:
        clips = [row for row in csv.DictReader(file) if (data / row["path"]).is_file()]
    random.Random(0).shuffle(clips)
    return clips


class Built(NamedTuple):
    """A build: seconds and bytes of each sample, processor seconds of all of it, and what the plan said."""

    seconds: np.ndarray
    sizes: np.ndarray
    processor_s: float
    planned: dict[str, Any]


def build_recordings(data: Path, clips: list[dict[str, str]]) -> Built:
    """Build rows of ``clips.csv`` with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "sounds", Path(folder) / "out"
        source.mkdir()
        for row in clips:
            (source / row["path"].replace("/", "-")).symlink_to(data / row["path"])
        with (source / "clips.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "captions"])
            table.writerows([row["path"].replace("/", "-"), row["label_or_caption"] or "a sound"] for row in clips)
        before = processor_s()
        settings = BuildSettings(sources={"mine": str(source)}, follow_links=True)
        build(settings, str(out), LocalRunner(1), allow_unprotected=True)
        took = processor_s() - before
        manifest = Manifest.open(str(out)).table
        seconds = np.array(manifest["duration_s"].to_pylist())
        sizes = np.array(manifest["audio_bytes"].to_pylist())
    planned = build_cost(len(clips), sum(float(row["duration_s"]) for row in clips), Nodes("host", 1, 1, 0))
    return Built(seconds, sizes, took, planned)


def processor_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


if __name__ == "__main__":
    main()
