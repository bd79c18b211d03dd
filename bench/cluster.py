"""Measures what `ray job submit` costs beside the local command: clips a second of a build, and of training.

    python -m bench.cluster [--quick] [--nodes 1 2]

The same synthesised clips are built with `earshot build` and as a job on clusters of 1, 2, ... nodes of one core each,
and the same training steps are taken with `earshot fit` and as a job of one rank.  A ratio is the job's speed over
that of the local command with as many workers.  Speeds are what the programs themselves print and log, so they leave
out how long Ray and a job take to start; ``start`` gives that: all of the job's time less that of the local command.
All nodes share this machine, so more nodes than cores show nothing but what they cost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.cluster.local_cluster import environment, free_port, submit
from training.run.log import read_records

ROOT = Path(__file__).parent.parent
PROBED = re.compile(r"probe: \d+/\d+ clips, ([\d.]+)/s, in ")
STORE = 200 << 20  # bytes of a node's object store


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Start a head without cores and nodes of one core each; yields the address of the job server."""
    from ray.cluster_utils import Cluster

    def node(**more: Any) -> dict[str, Any]:
        return {"object_store_memory": STORE, "dashboard_agent_listen_port": free_port()} | more

    port = free_port()
    found = Cluster(initialize_head=True, head_node_args=node(num_cpus=0, include_dashboard=True, dashboard_port=port))
    try:
        for _ in range(nodes):
            found.add_node(**node(num_cpus=1))
        yield f"http://127.0.0.1:{port}"
    finally:
        found.shutdown()


def local(words: Sequence[str], log: Path) -> float:
    """Run `earshot` here; the seconds that it took."""
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        command = [sys.executable, "-m", "ray_jobs.earshot", *words]
        subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=True)
    return time.monotonic() - began


def job(address: str, script: str, words: Sequence[str], log: Path) -> float:
    """Submit a job and wait for its end; the seconds that it took."""
    began = time.monotonic()
    submit(address, ROOT, ["python", f"ray_jobs/{script}.py", *words], log, show=False)
    return time.monotonic() - began


def clips_a_second(log: Path) -> float:
    """The speed of a build's probe, as it printed it."""
    return float(PROBED.findall(log.read_text(encoding="utf-8"))[-1])


def median_rate(run: Path) -> float:
    """Clips a second of the median step, without the first five, in which a run warms up."""
    return statistics.median(record["clips_per_s"] for record in read_records(run / "metrics.jsonl")[5:])


def measure(folder: Path, clips: int, steps: int, nodes: Sequence[int]) -> dict[str, float]:
    """Print a table; its ratios."""
    found: dict[str, float] = {}
    local(["demo-corpus", str(folder / "corpus"), "--clips", str(clips)], folder / "corpus.log")
    data = [f"--{name}={folder / 'corpus' / name}" for name in ("clotho", "audiocaps", "wavcaps", "tacos")]
    fit = [
        "demo",
        f"--shards={folder / 'local-1'}",
        "--set",
        f"optimizer.steps={steps}",
        "--set",
        "validation.split=null",
    ]
    here = {}
    for count in nodes:
        out = folder / f"local-{count}"
        here[count] = local(["build", *data, f"--out={out}", f"--workers={count}"], Path(f"{out}.log"))
    training = local(["fit", *fit, f"--run={folder / 'run-local'}"], folder / "fit.log")
    print(f"{'':34}{'local /s':>10}{'job /s':>10}{'ratio':>8}{'start s':>9}", flush=True)
    for count in nodes:
        with cluster(count) as address:
            out = folder / f"job-{count}"
            took = job(address, "build_shards", [*data, f"--out={out}"], Path(f"{out}.log"))
            rates = [clips_a_second(folder / f"{kind}-{count}.log") for kind in ("local", "job")]
            _print(found, f"build, {count} nodes: clips", rates, took - here[count])
            if count == nodes[0]:
                took = job(address, "train", [*fit, f"--run={folder / 'run-job'}", "--workers=1"], folder / "train.log")
                rates = [median_rate(folder / f"run-{kind}") for kind in ("local", "job")]
                _print(found, "training, 1 rank: clips", rates, took - training)
    return found


def _print(found: dict[str, float], name: str, rates: Sequence[float], start_s: float) -> None:
    found[name] = rates[1] / rates[0]
    print(f"{name:34}{rates[0]:10.1f}{rates[1]:10.1f}{found[name]:8.2f}{start_s:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few clips and steps, on one node")
    parser.add_argument("--nodes", type=int, nargs="+", help="sizes of the clusters (1 2)")
    args = parser.parse_args()
    # each process, here and on a node, has one core
    os.environ.update(environment() | {"OMP_NUM_THREADS": "1"})
    clips, steps = (150, 12) if args.quick else (1200, 60)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), clips, steps, args.nodes or ((1,) if args.quick else (1, 2)))
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
