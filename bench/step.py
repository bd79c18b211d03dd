"""A training step beside a bare loop: what DeepSpeed, exact negatives and bookkeeping cost.

    python -m bench.step [--quick]

The bare loop has the same encoders, head and optimizer, a plain symmetric cross-entropy over its batch, and data
in memory: nothing that a training script could leave out. Further rows: the cached step, and the same global
batch on several ranks of this machine (they share its cores, so equal clips/s is the most that can be had).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from training import recipe as recipes
from training.assembly import assemble
from training.chunks import rows
from training.data.batch import Batch
from training.engine import Engine, ranks
from training.recipe import Recipe
from training.schedule import make_schedule

BATCH = 16
SETTINGS = ["engine.zero=1", "audio.width=192", "audio.depth=4", "text.width=192", "text.depth=4"]


def recipe_of(*more: str) -> Recipe:
    return recipes.load("dual_encoder_small", [*SETTINGS, *more])


def make_batch(size: int) -> Batch:
    """Clips of 10 s and captions of 12 tokens, random."""
    torch.manual_seed(0)
    ids = torch.arange(size)
    return Batch(
        features=torch.randn(size, 1, 128, 1000),
        frames=torch.full((size, 1), 1000),
        tokens=torch.randint(5, 200, (size, 12)),
        token_mask=torch.ones(size, 12, dtype=torch.bool),
        clip=ids,
        caption=ids + 10**6,
        group=ids,
        kin=ids,
        seeds=ids,
        valid=torch.ones(size, dtype=torch.bool),
        keys=[str(number) for number in range(size)],
        texts=[""] * size,
        failures=[],
    )


def bare_step(recipe: Recipe, batch: Batch) -> Callable[[], float]:
    model, _ = assemble(recipe, ["one two three"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, batch = model.to(device).train(), batch.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    target = torch.arange(len(batch), device=device)

    def step() -> float:
        (audio,), (text,) = model(batch.features, batch.frames, batch.tokens, batch.token_mask, batch.seeds)
        logits = text @ audio.t() / 0.05
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def engine_step(recipe: Recipe, batch: Batch, group: Any) -> Callable[[], float]:
    model, loss = assemble(recipe, ["one two three"])
    flat = replace(recipe.optimizer, lr=1e-5, final_lr=1e-5, warmup_epochs=0)
    engine = Engine(model, loss, replace(recipe, optimizer=flat), make_schedule(flat, 100), group)
    return lambda: engine.step(batch).loss


def seconds(steps: list[Callable[[], float]], rounds: int) -> list[float]:
    """Median seconds of each kind of step, taken in turn so that all meet the same noise."""
    taken: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 2):
        for place, step in enumerate(steps):
            began = time.perf_counter()
            step()
            if number >= 2:
                taken[place].append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]


def measure_ranks(rounds: int) -> None:
    """Runs on each of several ranks: the first one prints the seconds of a step."""
    with ranks() as group:
        whole = make_batch(BATCH)
        share = slice(BATCH * group.rank // group.size, BATCH * (group.rank + 1) // group.size)
        [taken] = seconds([engine_step(recipe_of(), rows(whole, share), group)], rounds)
        if group.rank == 0:
            print(json.dumps({"seconds": taken}))


def on_ranks(count: int, rounds: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    done = subprocess.run(
        [*command, "-m", "bench.step", "--ranks", f"--rounds={rounds}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))},
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rounds = 5 if args.quick else args.rounds
    if args.ranks:
        measure_ranks(rounds)
        return
    batch = make_batch(BATCH)
    with ranks() as group:
        steps = [bare_step(recipe_of(), batch), engine_step(recipe_of(), batch, group)]
        steps.append(engine_step(recipe_of("engine.chunk=4"), batch, group))
        bare, plain, cached = seconds(steps, rounds)
    table = {"bare loop": bare, "engine, plain step": plain, "engine, cached step (4 at once)": cached}
    for count in (2,) if args.quick else (2, 4):
        table[f"engine, plain step, {count} ranks"] = on_ranks(count, rounds)
    print(f"global batch {BATCH}, {torch.get_num_threads()} threads, median of {rounds}")
    print(f"{'':34}{'s/step':>9}{'clips/s':>10}{'of bare':>9}")
    for name, taken in table.items():
        print(f"{name:34}{taken:9.3f}{BATCH / taken:10.1f}{taken / bare:9.3f}")
    ratios = {"plain_of_bare": plain / bare, "cached_of_plain": cached / plain}
    ratios |= {
        f"ranks_{n}_of_1": table[f"engine, plain step, {n} ranks"] / plain for n in ((2,) if args.quick else (2, 4))
    }
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
