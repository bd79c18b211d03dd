"""Measures how long a training step waits for samples that lie in an object store, by the store's latency.

The step is a pause: twice what the loader needs for a batch, from the local disk or from a store that answers at once,
whichever is longer.  So a loader that reads ahead far enough keeps up, also where other programs disturb it.  Each
latency is measured with reading ahead and without it (torch's own requests for later batches remain), beside the same
loader on the local disk.  Nothing is cached: every sample is read once.

    python -m bench.latency [--quick] [--clips N] [--workers N] [--latencies MS ...]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from bench.loading.clips import RATE, Clips, no_tokens, synthesise
from bench.loading.slow_store import slow_store
from sharding.common.storage import Storage
from training.data import AudioInput, DataSettings, Loader, MixtureItem, Order, read_ahead

WAVES = AudioInput("samples", RATE, 10.0, 10.0, 30.0)  # as with `spectrogram: device`, where workers only decode
SETTINGS = DataSettings(train=(MixtureItem("bench"),), batch_size=8)
WARM_UP = 4  # batches of each run that are not measured: the first ones are waited for
SLACK = 2.0  # step by time of a batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, help="clips of 10 s (512)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 5, 50, 200], help="milliseconds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = synthesise(folder, args.clips or (160 if args.quick else 512))
        disk, _ = run(clips, clips.storage, args.workers, 0.0)
        with slow_store(folder, 0.0) as endpoint, environment(endpoint, folder / "cache"):
            at_once, _ = run(clips, Storage("s3://bench"), args.workers, 0.0)
        step = SLACK * max(disk, at_once)
        print(
            f"a batch of {SETTINGS.batch_size}: {disk:.3f} s from the local disk, {at_once:.3f} s from a store at 0 ms"
        )
        print(f"a step: {step:.3f} s")
        print(f"{'samples on':28} {'wait, reading ahead':>20} {'without':>9}")
        print(f"{'the local disk':28} {run(clips, clips.storage, args.workers, step)[1]:20.1%}", flush=True)
        for latency in args.latencies:
            with slow_store(folder, latency / 1000) as endpoint, environment(endpoint, folder / "cache"):
                store = Storage("s3://bench")
                with_it = run(clips, store, args.workers, step)[1]
                with reading_ahead(0):
                    without = run(clips, store, args.workers, step)[1]
            print(f"{f'a store at {latency:g} ms':28} {with_it:20.1%} {without:9.1%}", flush=True)


def run(clips: Clips, storage: Storage, workers: int, step_s: float) -> tuple[float, float]:
    """Seconds of a batch, and the share of the time in which the step waits for its batch."""
    order = Order(clips.table, SETTINGS, 0)
    batches = Loader(replace(clips, storage=storage), order, SETTINGS, WAVES, no_tokens, workers=workers).epoch(0)
    waited, count, began = 0.0, 0, 0.0
    for number in range(order.steps_per_epoch):
        asked = time.perf_counter()
        next(batches)
        if number >= WARM_UP:
            waited += time.perf_counter() - asked
            count += 1
        elif number == WARM_UP - 1:
            began = time.perf_counter()
        time.sleep(step_s)
    seconds = time.perf_counter() - began
    return seconds / count, waited / seconds


@contextmanager
def reading_ahead(batches: int) -> Iterator[None]:
    """Limit how many batches workers read ahead."""
    former, read_ahead.BATCHES = read_ahead.BATCHES, batches
    try:
        yield
    finally:
        read_ahead.BATCHES = former


@contextmanager
def environment(endpoint: str, cache: Path) -> Iterator[None]:
    """Credentials and the address of the store."""
    values = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "EARSHOT_CACHE": str(cache),
    }
    former = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    main()
