"""N ranks equal one through DeepSpeed (promise 7): losses, gradients and weights of several steps.

Every registered head and loss, every ZeRO stage, plain and cached, with dropout and patchout on, a trained
temperature, rates by name, frozen blocks and clipping that binds.  What they are held against is plain torch: one
process, the whole batch, no DeepSpeed.  The three steps of a case cut their batches evenly, unevenly, and with an
empty rank; clips and captions recur across ranks, and one sample is damaged.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import gc
import itertools
import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sharding.common.processes import leave
from tests.training.engine.test_equivalence import global_batch, splits, variants
from tests.training.ranks import on_ranks
from tests.training.small_runs import TREE, small_recipe
from training.config.sections import Recipe
from training.data.batch import Batch
from training.engine.distributed import Group, LocalGroup
from training.engine.launch import ranks
from training.engine.optimizers import AVERAGE, freeze, parameter_groups
from training.engine.schedule import Schedule, make_schedule
from training.engine.step import Engine
from training.models.heads import HEADS
from training.objectives.pairs import LOSSES
from training.objectives.pairs.relations import TAGS, batch_ids
from training.objectives.pairs.tiled import Items, global_loss
from training.tasks.retrieval import RetrievalTask, assemble

STEPS = 3
TOLERANCE = 1e-5  # float32; relative to the largest number of its kind
NUDGES = 12  # of the weights' last bits, tried where a course differs
COMMON = [
    "optimizer.name=sgd",
    "optimizer.lr=0.2",
    "optimizer.final_lr=0.1",
    "optimizer.clip=0.3",
    f"optimizer.steps={STEPS}",
    "optimizer.warmup_epochs=0",
    "optimizer.rates={'head.*': 3.0, 'text.*': 2.0}",
    "optimizer.layer_decay=0.8",
    "text.dropout=0.1",
    "audio.dropout=0.1",
]
MORE = {
    "lower blocks frozen": ["optimizer.freeze_below={audio: 1, text: 1}"],
    "audio frozen": ["optimizer.freeze=['audio.*']"],
    "text and head frozen": ["optimizer.freeze=['text.*', 'head.*']"],
    "never clipped": ["optimizer.clip=0", "optimizer.lr=0.1"],
    "blocks computed again": ["engine.activation_checkpointing=true"],
    "averaged": ["engine.ema=0.5"],
    "one language model": [
        "audio={encoder: multimodal, source: random, segment_s: 1, max_s: 3, bins: 128, width: 8, depth: 1, heads: 2}",
        "text={encoder: multimodal, source: random, width: 16, depth: 2, heads: 2, vocabulary: 280}",
        "head.dim=null",
        "lora={text: {rank: 2}}",
        "optimizer.freeze=['audio.net.*']",
        "optimizer.rates={'text.*': 2.0}",
    ],
}
# Settings that change how a step is computed, and nothing else.
HOW = ("engine.zero", "engine.chunk", "engine.compile", "engine.activation_checkpointing")
Case = tuple[str, ...]  # head, loss, and overrides of the recipe


def recipe_of(one: Case) -> Recipe:
    head, loss, *overrides = one
    sections = {}
    for key, module in (("head", HEADS[head]), ("loss", LOSSES[loss])):
        settings = variants(module)[0]
        names = {field.name for field in dataclasses.fields(settings)}
        chosen = {"dropout": 0.1, "trainable_tau": True}
        sections[key] = dataclasses.asdict(settings) | {k: v for k, v in chosen.items() if k in names}
    return small_recipe([*COMMON, *overrides], TREE | json.loads(json.dumps(sections)))


def ways(*overrides: str) -> Iterator[list[str]]:
    """Every ZeRO stage, plain and in chunks: so small that a rank has a first, a middle and a last one."""
    for zero, chunk in itertools.product(range(4), (0, 4)):
        yield [*overrides, f"engine.zero={zero}", f"engine.chunk={chunk}"]


def in_turn(number: int, *overrides: str) -> list[list[str]]:
    """Every ZeRO stage once: plain and in chunks in turn, and the other way round for the next ``number``."""
    found = list(ways(*overrides))
    return [found[2 * zero + (zero + number) % 2] for zero in range(4)]


def all_cases(world: int) -> list[Case]:
    """Every head at every stage, every loss there plain and cached; on one rank and two, every head with every loss.

    (Every head with every loss on three ranks and four is what test_equivalence proves, without DeepSpeed.)
    """
    cases: list[Case] = []
    for (row, head), (column, loss) in itertools.product(enumerate(HEADS), enumerate(LOSSES)):
        if world <= 2 or row % len(LOSSES) == column:
            cases += [(head, loss, *way) for way in in_turn(row // len(LOSSES) + column)]
    for number, more in enumerate(MORE.values()):
        cases += [("dual", "ntxent", *way) for way in in_turn(number, *more)]
    return cases


def fast_cases() -> list[Case]:
    """Every stage once, plain and cached, heads and losses in turn."""
    pairs = itertools.product(HEADS, LOSSES)
    cases = [(*pair, *way) for pair, way in zip(pairs, in_turn(0) + in_turn(1)[2:], strict=False)]
    return [*cases, ("dual", "ntxent", *MORE["one language model"], "engine.zero=2", "engine.chunk=4")]


def batch_of(step: int) -> Batch:
    """12 clips of 1 to 3 segments with captions of 1 to 5 tokens; one is damaged."""
    generator = torch.Generator().manual_seed(step)
    pattern = global_batch(torch.float32)
    segments, length = pattern["sound_mask"].sum(1), pattern["token_mask"]
    frames = torch.where(pattern["sound_mask"], 100, 0)
    frames[torch.arange(12), segments - 1] = torch.randint(20, 101, (12,), generator=generator)
    clip, caption, group, kin = pattern["ids"][:, :TAGS].unbind(1)
    valid = torch.ones(12, dtype=torch.bool)
    valid[step] = False
    return Batch(
        features=torch.randn(12, 3, 128, 100, generator=generator),
        frames=frames,
        tokens=torch.randint(5, 260, length.shape, generator=generator).where(length, 1),
        token_mask=length,
        tags=pattern["ids"][:, TAGS:],
        heard_s=torch.zeros(len(pattern["ids"]), 2, dtype=torch.float64),
        clip=clip,
        caption=caption,
        group=group,
        kin=kin,
        seeds=torch.randint(-(2**62), 2**62, (12,), generator=generator),
        valid=valid,
        keys=[str(number) for number in range(12)],
        texts=[""] * 12,
        labels=[[] for _ in range(12)],
        failures=[],
        name_part=0,
    )


def share(batch: Batch, cut: Sequence[int], rank: int) -> Batch:
    """A rank's samples, in another order than one process has them, padded to their own longest caption."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    mine = torch.zeros(12, dtype=torch.bool)
    mine[order[sum(cut[:rank]) : sum(cut[: rank + 1])]] = True
    part = batch.take(mine)
    longest = int(part.token_mask.sum(1).max()) if len(part) else 1
    return dataclasses.replace(part, tokens=part.tokens[:, :longest], token_mask=part.token_mask[:, :longest])


@dataclasses.dataclass
class Course:
    """What a run of a few steps did: per step the loss, the norm before clipping, and the weights after it."""

    losses: list[float]
    norms: list[float]
    weights: list[dict[str, Tensor]]
    average: dict[str, Tensor]


def schedule_of(recipe: Recipe) -> Schedule:
    return make_schedule(recipe.optimizer, STEPS)


@functools.cache
def by_torch(one: Case, nudge: int = 0) -> Course:
    """One process with the whole batch, and nothing of DeepSpeed.

    With a ``nudge`` the weights begin otherwise in their last bit, for each number in another way.
    """
    recipe = recipe_of(one)
    model, loss = assemble(recipe, ["one two three"])
    if nudge:
        generator = torch.Generator().manual_seed(nudge)
        for parameter in model.parameters():
            towards = torch.rand(parameter.shape, generator=generator) - 0.5
            parameter.data = torch.nextafter(parameter.data, parameter.data + towards)
    task = RetrievalTask(model, loss)
    names = task.names()
    freeze(task, recipe.optimizer)
    optimizer = torch.optim.SGD(parameter_groups(task, recipe.optimizer), lr=1.0)
    course = Course([], [], [_copy(names)], _copy(names))
    for step in range(STEPS):
        model.train()
        whole = batch_of(step)
        batch = whole.take(whole.valid)
        for group in optimizer.param_groups:
            group["lr"] = schedule_of(recipe).rate(step) * group["factor"]
        *_, audio, text = model(batch)
        ids = batch_ids(batch)
        value = global_loss(model.head, loss, Items(text, ids), Items(audio, ids), LocalGroup())
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(names.values(), recipe.optimizer.clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        course.losses.append(float(value.detach()))
        course.norms.append(float(norm))
        course.weights.append(_copy(names))
        for name, value in course.average.items():
            value.lerp_(names[name].detach(), 1 - recipe.engine.ema)
    return course


def _copy(names: dict[str, Any]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in names.items()}


def by_engine(one: Case, group: Group) -> Course:
    recipe = recipe_of(one)
    model, loss = assemble(recipe, ["one two three"])
    engine = Engine(RetrievalTask(model, loss), recipe, schedule_of(recipe), group)
    cuts = splits(group.size)
    course = Course([], [], [all_of(engine)], {})
    for step in range(STEPS):
        result = engine.step(share(batch_of(step), cuts[step % len(cuts)], group.rank))
        assert result.applied
        course.losses.append(result.loss)
        course.norms.append(result.grad_norm)
        course.weights.append(all_of(engine))
    course.average = engine.optimizer_moments().get(AVERAGE, {})
    engine.close()
    return course


def all_of(engine: Engine) -> dict[str, Tensor]:
    """Every parameter, trained or not."""
    return engine.parameters() | engine.frozen_parameters()


def differences(one: Case, group: Group) -> str:
    """Empty if this rank's course equals plain torch's, else what differs and by how much.

    Where a unit of a ReLU is zero up to rounding, rounding decides whether it has a gradient.  So a course may also
    equal that of plain torch from weights that differ in their last bit.
    """
    plain = tuple(word for word in one if not word.startswith(HOW))
    found = by_engine(one, group)
    # computed by one rank; the others compare losses and norms alone
    known = by_torch(plain) if group.rank == 0 else None
    shared = group.gather_objects(known and dataclasses.replace(known, weights=[], average={}))[0]
    wrong = distant(found, known or shared, group)
    if wrong and any(not distant(found, by_torch(plain, nudge), group) for nudge in range(1, NUDGES + 1)):
        return ""
    return f"rank {group.rank}: {wrong}" if wrong else ""


def distant(found: Course, expected: Course, group: Group) -> dict[str, float]:
    """What differs by more than rounding between two courses, and by how much."""
    errors: dict[str, float] = {}
    for step in range(STEPS):
        errors[f"loss {step}"] = abs(found.losses[step] / expected.losses[step] - 1)
        errors[f"norm {step}"] = abs(found.norms[step] / expected.norms[step] - 1)
        if group.rank:
            continue  # the first rank alone has the whole parameters
        moves = [
            {name: after[name] - before[name] for name in after}
            for before, after in (course.weights[step : step + 2] for course in (expected, found))
        ]
        largest = max(float(move.abs().max()) for move in moves[0].values())
        for name, move in moves[0].items():
            rounding = 2 * torch.finfo(torch.float32).eps * float(expected.weights[step][name].abs().max())
            errors[f"{name} {step}"] = (float((moves[1][name] - move).abs().max()) - rounding) / largest
    for name, value in found.average.items():
        errors[f"average {name}"] = float((value - expected.average[name]).abs().max())
    return {name: error for name, error in errors.items() if not error <= TOLERANCE}


def _run_rank(rank: int, world: int, folder: str, cases: list[Case]) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # DeepSpeed collects garbage at each start of stage 3, among all that the libraries hold
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    results = {}
    with ranks() as group:
        for one in cases:
            try:
                found = differences(one, group)
            except Exception:
                found = traceback.format_exc()
            results[" ".join(one)] = "\n".join(filter(None, group.gather_objects(found)))
    if rank == 0:
        Path(folder, "results").write_text(json.dumps(results))
    dist.destroy_process_group()
    leave(0)


def prove(world: int, cases: list[Case], folder: Path) -> None:
    on_ranks(_run_rank, world, world, str(folder), cases)
    results = json.loads((folder / "results").read_text())
    wrong = {name: found for name, found in results.items() if found}
    assert len(results) == len(cases)
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(f"{k}: {v}" for k, v in wrong.items())


def test_two_ranks_step_like_plain_torch(tmp_path: Path) -> None:
    prove(2, fast_cases(), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_head_loss_and_stage_steps_like_plain_torch(world: int, tmp_path: Path) -> None:
    prove(world, all_cases(world), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_blocks_step_like_plain_torch(tmp_path: Path) -> None:
    """In chunks and with dropout: what is compiled without gradient draws what is compiled with it draws."""
    prove(1, [("dual", "ntxent", "engine.compile=true", "engine.zero=1", "engine.chunk=6")], tmp_path)
