"""Measures what DeepSpeed, exact negatives and bookkeeping add to a training step, against a bare loop.

    python -m bench.step [--quick] [--full]
    python -m bench.step --collat [--quick]

The bare loop has the same encoders, head and optimizer, torch's own dropout, a plain symmetric cross-entropy over its
batch, and data in memory: nothing that a training script could leave out. Further rows are the cached step, and the
same global batch on 1, 2 and 4 ranks of this machine. The ranks share its cores, so equal clips/s is the best result.
Without a GPU, the ratios of single processes are of processor seconds, which depend little on the machine's other
users.  A second table gives the share of the encoders' input that is padding. ``--full`` adds steps of the recipe
dual_encoder at its full size with random weights, batch 2: about 14 GB of memory.

``--collat`` compares a step of CoLLAT with that of a dual encoder between the same towers, AST and CLIP's text tower in
a small size: eight blocks write the 75 tokens of a text of 77, and the noise term hears each clip twice.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from training.config.loading import load_recipe
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.sound.features import AudioInput
from training.engine.launch import ranks
from training.engine.schedule import make_schedule
from training.engine.step import Engine
from training.tasks import task_module
from training.tasks.collat import CollatTask
from training.tasks.retrieval import RetrievalTask, assemble

BATCH = 16
SETTINGS = ["engine.zero=1", "audio.width=192", "audio.depth=4", "text.width=192", "text.depth=4"]


def recipe_of(*more: str) -> Recipe:
    return load_recipe("dual_encoder_small", [*SETTINGS, *more])


def make_batch(size: int) -> Batch:
    """Clips of 10 s and captions of 12 tokens, random."""
    torch.manual_seed(0)
    ids = torch.arange(size)
    return Batch(
        features=torch.randn(size, 1, 128, 1000),
        frames=torch.full((size, 1), 1000),
        tokens=torch.randint(5, 200, (size, 12)),
        token_mask=torch.ones(size, 12, dtype=torch.bool),
        tags=torch.zeros(size, 0, dtype=torch.int64),
        heard_s=torch.zeros(size, 2, dtype=torch.float64),
        clip=ids,
        caption=ids + 10**6,
        group=ids,
        kin=ids,
        seeds=ids,
        valid=torch.ones(size, dtype=torch.bool),
        keys=[str(number) for number in range(size)],
        texts=[""] * size,
        labels=[[] for _ in range(size)],
        failures=[],
        name_part=0,
    )


def bare_step(recipe: Recipe, batch: Batch) -> Callable[[], float]:
    model, _ = assemble(recipe, ["one two three"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, batch = model.to(device).train(), batch.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    target = torch.arange(len(batch), device=device)

    def step() -> float:
        (audio,) = model.audio_side(batch.features, batch.frames, batch.seeds)
        (text,) = model.text_side(batch.tokens, batch.token_mask)  # without seeds: torch's own dropout
        logits = text @ audio.t() / 0.05
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def engine_of(recipe: Recipe, group: Any, task: RetrievalTask | None = None) -> Engine:
    """An engine of a constant rate; by default for the recipe's dual encoder."""
    flat = replace(recipe.optimizer, lr=1e-5, final_lr=1e-5, warmup_epochs=0)
    task = task or RetrievalTask(*assemble(recipe, ["one two three"]))
    return Engine(task, replace(recipe, optimizer=flat), make_schedule(flat, 100), group)


def engine_step(recipe: Recipe, batch: Batch, group: Any) -> Callable[[], float]:
    engine = engine_of(recipe, group)
    return lambda: engine.step(batch).loss


COLLAT = [
    *("audio={encoder: ast, source: random, width: 192, depth: 4, heads: 3, segment_s: 10.0}", "data.max_tokens=77"),
    *("text={encoder: clip, source: random, width: 192, depth: 4, heads: 3, vocabulary: 1000}", "engine.dtype=fp32"),
]
DUAL = ["task={name: retrieval}", "head={name: dual, dim: 192, project_text: false}", "optimizer.rates={}"]
PARTS = {  # of a step: changes of the recipe collat
    "dual encoder, both towers trained": DUAL,
    "dual encoder, text locked": [*DUAL, "optimizer.freeze=['text.*']"],
    "CoLLAT, pairs alone": ["task.token_weight=0", "task.noise_weight=0"],
    "CoLLAT, tokens and pairs": ["task.noise_weight=0"],
    "CoLLAT": [],
    "CoLLAT, optimal matching": ["task.matching=optimal"],
}


def collat_step(changes: list[str], size: int, group: Any) -> Callable[[], float]:
    """A step of the recipe collat in a small size, on clips of 10 s and prompts of 12 tokens."""
    recipe = load_recipe("collat", [*COLLAT, *changes])
    made = task_module(recipe).blank(recipe, ["This is a sound of one, two, and three"])
    task = RetrievalTask(made.model, made.loss)
    if recipe.task.name == "collat":
        task = CollatTask(made.model, made.loss, recipe.loss.name, recipe.task)
    batch, words = make_batch(size), made.tokenizer("a")["input_ids"]
    batch.tokens[:, 0], batch.tokens[:, -1] = words[0], words[-1]
    engine = engine_of(recipe, group, task)
    return lambda: engine.step(batch).loss


def compare_collat(rounds: int, size: int) -> None:
    """Print what a step of CoLLAT takes, with and without its parts, beside the dual encoder's."""
    clock = 0 if torch.cuda.is_available() else 1
    with ranks() as group:
        found = seconds([collat_step(changes, size, group) for changes in PARTS.values()], rounds, warm=1)
    taken = dict(zip(PARTS, (times[clock] for times in found), strict=True))
    base = taken["dual encoder, text locked"]
    print(f"batch {size}, {torch.get_num_threads()} threads, median of {rounds}, load {os.getloadavg()[0]:.0f}")
    print(f"{'':36}{'processor s' if clock else 's':>12}{'of locked':>11}")
    for name, value in taken.items():
        print(f"{name:36}{value:12.3f}{value / base:11.2f}")
    print(json.dumps({name: round(value / base, 4) for name, value in taken.items()}))


def seconds(steps: list[Callable[[], float]], rounds: int, warm: int = 2) -> list[tuple[float, float]]:
    """Median seconds and processor seconds of each kind of step, which alternate to share the same noise."""
    taken: list[list[tuple[float, float]]] = [[] for _ in steps]
    for number in range(rounds + warm):
        for kind, step in enumerate(steps):
            began, processor = time.perf_counter(), time.process_time()
            step()
            if number >= warm:
                taken[kind].append((time.perf_counter() - began, time.process_time() - processor))
    return [tuple(map(statistics.median, zip(*times, strict=True))) for times in taken]


def measure_ranks(rounds: int) -> None:
    """Runs on each of several ranks: the first one prints the seconds of a step."""
    with ranks() as group:
        whole = make_batch(BATCH)
        share = slice(BATCH * group.rank // group.size, BATCH * (group.rank + 1) // group.size)
        [(taken, _)] = seconds([engine_step(recipe_of(), whole.take(share), group)], rounds)
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


def full_size(steps: int = 1) -> dict[str, float]:
    """Steps of the published dual encoder with random weights, two clips of 30 s: what they take and reach."""
    recipe = load_recipe("dual_encoder", ["audio.source=random", "text.source=random", "data.batch_size=2"])
    batch = make_batch(2)
    batch = replace(batch, features=torch.randn(2, 3, 128, 1000), frames=torch.full((2, 3), 1000))
    model, loss = assemble(recipe, ["one two three"])
    count = sum(parameter.numel() for parameter in model.parameters())
    with ranks() as group:
        engine = Engine(RetrievalTask(model, loss), recipe, make_schedule(recipe.optimizer, 100), group)
        losses: list[float] = []

        def step() -> float:
            losses.append(engine.step(batch).loss)
            return losses[-1]

        [(wall, processor)] = seconds([step], steps, warm=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    times = {"seconds": wall, "processor_seconds": processor}
    return {"parameters": count, **times, "peak_gb": peak, "first": losses[0], "last": losses[-1]}


def padding(clips: int = 19_200, batch: int = 64) -> dict[str, float]:
    """Shares of the encoders' input that are padding, for clips and captions about as long as the four datasets'."""
    draw = np.random.default_rng(0)
    lengths = [draw.uniform(15, 30, clips // 4), np.full(clips // 4, 10.0), draw.lognormal(2.7, 1.0, clips // 2)]
    seconds = draw.permutation(np.concatenate(lengths).clip(0.5, 30)).reshape(-1, batch)
    tokens = draw.normal(14, 5, clips).round().clip(4, 32).reshape(-1, batch)
    audio = AudioInput("passt", 32000, 10.0, 10.0, 30.0)
    encoded = np.vectorize(lambda s: len(audio.segment_lengths(round(s * audio.rate))) * audio.segment_s)(seconds)
    return {
        "audio: segments without sound left out (earshot)": 1 - seconds.sum() / encoded.sum(),
        "audio: padded to the batch's longest clip": 1 - (seconds / encoded.max(1, keepdims=True)).mean(),
        "audio: padded to 30 s": 1 - seconds.mean() / 30,
        "text: padded to the batch's longest caption (earshot)": 1 - (tokens / tokens.max(1, keepdims=True)).mean(),
        "text: padded to 32 tokens": 1 - tokens.mean() / 32,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--full", action="store_true", help="also the full-size recipe at batch 2")
    parser.add_argument("--collat", action="store_true", help="CoLLAT's step beside the dual encoder's")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rounds = 5 if args.quick else args.rounds
    if args.ranks:
        measure_ranks(rounds)
        return
    if args.collat:
        compare_collat(2 if args.quick else 10, 2 if args.quick else BATCH)
        return
    batch = make_batch(BATCH)
    with ranks() as group:
        steps = [bare_step(recipe_of(), batch), engine_step(recipe_of(), batch, group)]
        steps.append(engine_step(recipe_of("engine.chunk=4"), batch, group))
        bare, plain, cached = seconds(steps, rounds)
    table = {"bare loop": bare[0], "engine, plain step": plain[0], "engine, cached step (4 at once)": cached[0]}
    worlds = (2,) if args.quick else (1, 2, 4)
    for count in worlds:
        table[f"engine, plain step, {count} ranks"] = on_ranks(count, rounds)
    print(f"global batch {BATCH}, {torch.get_num_threads()} threads in all, median of {rounds}")
    print(f"{'':34}{'s/step':>9}{'clips/s':>10}{'of bare':>9}")
    for name, taken in table.items():
        print(f"{name:34}{taken:9.3f}{BATCH / taken:10.1f}{taken / bare[0]:9.3f}")
    clock = 0 if torch.cuda.is_available() else 1
    ratios = {"plain_of_bare": plain[clock] / bare[clock], "cached_of_plain": cached[clock] / plain[clock]}
    if clock:
        print(f"processor seconds of bare: plain {ratios['plain_of_bare']:.3f}, cached {cached[1] / bare[1]:.3f}")
    ratios |= {f"ranks_{count}_of_1": table[f"engine, plain step, {count} ranks"] / plain[0] for count in worlds}
    print(f"\n{'share of the input that is padding':56}{'%':>6}")
    for name, share in padding().items():
        print(f"{name:56}{100 * share:6.1f}")
        ratios[f"padding, {name}"] = share
    if args.full:
        found = full_size()
        print(f"\ndual_encoder at full size, batch 2: {json.dumps({k: round(v, 4) for k, v in found.items()})}")
        ratios |= {"full_seconds": found["seconds"], "full_peak_gb": found["peak_gb"]}
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
