"""Any task steps the same on any number of ranks, at any ZeRO stage, at once or in chunks.

The task here has what retrieval has not: more columns than rows, two pair terms on the same sides, a teacher, local
sums whose counts differ from sample to sample, and a stack of layers of which the loss takes what an inner one returns.
"""

from __future__ import annotations

import dataclasses
import datetime
import gc
import itertools
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sharding.common.processes import leave
from tests.training.engine.test_equivalence import splits
from tests.training.ranks import on_ranks
from tests.training.small_runs import small_recipe
from training.data.batch import Columns
from training.engine.distributed import Group, LocalGroup
from training.engine.launch import ranks
from training.engine.schedule import make_schedule
from training.engine.step import Engine
from training.models.heads.base import DotProduct
from training.objectives.pairs import build_loss, ntxent, siglip
from training.objectives.pairs.distillation import Distillation
from training.objectives.pairs.distillation import Settings as DistillationSettings
from training.objectives.pairs.tiled import Items, Teacher, global_loss
from training.tasks.base import LocalSum, Outputs, PairTerm, Task, TeacherSides

STEPS, SAMPLES = 3, 12
RECIPE = ["optimizer.name=sgd", "optimizer.lr=0.1", "optimizer.clip=0.5", f"optimizer.steps={STEPS}"]
RECIPE += ["optimizer.warmup_epochs=0", "optimizer.rates={'anchor.*': 2.0}"]


@dataclasses.dataclass(frozen=True)
class Sentences(Columns):
    """Anchors, partners and hard negatives, ``[b, 6]`` each, with targets ``[b, 4]`` of which some are padding."""

    anchors: Tensor
    partners: Tensor
    negatives: Tensor
    targets: Tensor
    target_mask: Tensor


class Stack(nn.Module):
    """Two layers.  The task takes what the lower one returns, as models take a layer of a frozen encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(6, 5), nn.Linear(5, 2).requires_grad_(False)

    def forward(self, vectors: Tensor) -> Tensor:
        self.inner = self.lower(vectors)
        upper: Tensor = self.upper(self.inner)
        return upper


class SentencePairs(Task):
    """Anchors find their partners among all partners and hard negatives, and predict their targets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.anchor, self.candidate = nn.Linear(6, 6), Stack(), nn.Linear(6, 5)
        self.predict = nn.Linear(5, 4)
        self.frozen = nn.Linear(6, 3).requires_grad_(False)
        self.loss = build_loss(ntxent.Settings(positives="clip", trainable_tau=True))
        self.sigmoid = build_loss(siglip.Settings(positives="clip"))
        self.distilled = Distillation(DistillationSettings())

    def forward(self, batch: Sentences) -> Outputs:
        both = torch.stack((batch.partners, batch.negatives), 1).flatten(0, 1)  # two candidates for each sample
        candidates = nn.functional.normalize(self.candidate(both), dim=-1)
        self.anchor(self.first(batch.anchors))  # what the whole stack returns has no part in the loss
        anchors = nn.functional.normalize(self.anchor.inner, dim=-1)
        error = (self.predict(anchors) - batch.targets).square() * batch.target_mask
        sides = {"anchors": Items((anchors,), ids_of(batch.clip)), "candidates": Items((candidates,), pair_ids(batch))}
        return Outputs(sides, {"prediction": LocalSum(error.sum(), batch.target_mask.sum())})

    def fixed_sides(self, batch: Sentences) -> dict[str, Items]:
        both = torch.stack((batch.partners, batch.negatives), 1).flatten(0, 1)
        with torch.no_grad():
            taught = {"taught anchors": (batch.anchors, batch.clip), "taught candidates": (both, pair_ids(batch)[:, 0])}
            return {name: Items((self.frozen(x).tanh() / 2,), ids_of(ids)) for name, (x, ids) in taught.items()}

    def terms(self) -> dict[str, PairTerm]:
        teacher = TeacherSides(DotProduct(), "taught anchors", "taught candidates")
        sides, dot = ("anchors", "candidates"), DotProduct()
        return {
            "contrast": PairTerm(*sides, dot, self.loss),
            "sigmoid": PairTerm(*sides, dot, self.sigmoid, weight=0.1),
            "distillation": PairTerm(*sides, dot, self.distilled, weight=0.5, teachers=(teacher,)),
        }

    def weights(self) -> dict[str, float]:
        return {"prediction": 0.3}


def ids_of(numbers: Tensor) -> Tensor:
    return numbers[:, None].expand(-1, 4)


def pair_ids(batch: Sentences) -> Tensor:
    """The partner has its anchor's id, the hard negative one of its own."""
    return ids_of(torch.stack((batch.clip, -1 - batch.clip), 1).flatten())


def batch_of(step: int) -> Sentences:
    generator = torch.Generator().manual_seed(step)
    numbers = torch.arange(SAMPLES)
    valid = torch.ones(SAMPLES, dtype=torch.bool)
    valid[step] = False
    lengths = torch.randint(0, 5, (SAMPLES,), generator=generator)
    anchors, partners, negatives = torch.randn(3, SAMPLES, 6, generator=generator)
    return Sentences(
        clip=numbers,
        caption=numbers,
        group=numbers,
        kin=numbers,
        seeds=numbers,
        valid=valid,
        keys=[str(number) for number in range(SAMPLES)],
        failures=[],
        name_part=0,
        anchors=anchors,
        partners=partners,
        negatives=negatives,
        targets=torch.randn(SAMPLES, 4, generator=generator),
        target_mask=(torch.arange(4) < lengths[:, None]).float(),
    )


def share(batch: Sentences, cut: Sequence[int], rank: int) -> Sentences:
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(5))
    mine = torch.zeros(SAMPLES, dtype=torch.bool)
    mine[order[sum(cut[:rank]) : sum(cut[: rank + 1])]] = True
    return batch.take(mine)


def plain_course() -> tuple[list[float], dict[str, Tensor]]:
    """Losses and final weights of one process with whole batches, without DeepSpeed."""
    task, recipe = SentencePairs(), small_recipe(RECIPE)
    fast = {id(parameter) for parameter in task.anchor.parameters()}
    groups = [
        {"params": [p for p in task.parameters() if p.requires_grad and (id(p) in fast) == quick], "factor": factor}
        for quick, factor in ((True, 2.0), (False, 1.0))
    ]
    optimizer, schedule = torch.optim.SGD(groups, lr=1.0), make_schedule(recipe.optimizer, STEPS)
    losses = []
    for step in range(STEPS):
        batch = batch_of(step)
        batch = batch.take(batch.valid)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["factor"]
        outputs = task(batch)
        sides = outputs.sides | task.fixed_sides(batch)
        total = 0.3 * outputs.local["prediction"].total / outputs.local["prediction"].count
        for term in task.terms().values():
            teachers = [Teacher(each.scorer, sides[each.rows].side, sides[each.columns].side) for each in term.teachers]
            value = global_loss(term.scorer, term.loss, sides[term.rows], sides[term.columns], LocalGroup(), teachers)
            total = total + term.weight * value
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_([p for p in task.parameters() if p.requires_grad], 0.5)
        optimizer.step()
        losses.append(float(total.detach()))
    return losses, {name: parameter.detach().clone() for name, parameter in task.names().items()}


def differences(group: Group, zero: int, chunk: int) -> str:
    expected, weights = plain_course()
    recipe = small_recipe([*RECIPE, f"engine.zero={zero}", f"engine.chunk={chunk}"])
    engine = Engine(SentencePairs(), recipe, make_schedule(recipe.optimizer, STEPS), group)
    cuts, losses = splits(group.size), []
    for step in range(STEPS):
        result = engine.step(share(batch_of(step), cuts[step % len(cuts)], group.rank))
        assert result.applied and result.parts.keys() == {"contrast", "sigmoid", "distillation", "prediction"}
        losses.append(result.loss)
    found = engine.parameters() | engine.frozen_parameters()
    engine.close()
    wrong = {
        step: pair for step, pair in enumerate(zip(losses, expected, strict=True)) if abs(pair[0] / pair[1] - 1) > 1e-5
    }
    errors = {name: float((found[name] - weights[name]).abs().max()) for name in found}
    wrong |= {name: error for name, error in errors.items() if error > 2e-6}
    return f"rank {group.rank}, zero {zero}, chunk {chunk}: {wrong}" if wrong else ""


def run_rank(rank: int, world: int, folder: str, ways: list[tuple[int, int]]) -> None:
    torch.set_num_threads(1)
    gc.freeze()
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    results: list[Any] = []
    with ranks() as group:
        for zero, chunk in ways:
            try:
                found = differences(group, zero, chunk)
            except Exception:
                found = traceback.format_exc()
            results += [text for text in group.gather_objects(found) if text]
    if rank == 0:
        Path(folder, "results").write_text(json.dumps(results))
    dist.destroy_process_group()
    leave(0)


def prove(world: int, ways: list[tuple[int, int]], folder: Path) -> None:
    on_ranks(run_rank, world, world, str(folder), ways)
    wrong = json.loads((folder / "results").read_text())
    assert not wrong, "\n".join(wrong)


def test_two_ranks_step_like_plain_torch(tmp_path: Path) -> None:
    prove(2, [(0, 0), (1, 4), (2, 0), (3, 4)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_stage_steps_like_plain_torch(world: int, tmp_path: Path) -> None:
    prove(world, list(itertools.product(range(4), (0, 1, 4))), tmp_path)


def test_columns_are_cut_and_filled_in_alike() -> None:
    batch = batch_of(0)
    assert batch.take(slice(3, 5)).keys == ["3", "4"] and batch.take(slice(0, 12)) is batch
    assert batch.take(batch.valid).clip.tolist() == list(range(1, 12))
    empty = batch.placeholder()
    assert len(empty) == 1 and empty.anchors.shape == (1, 6) and float(empty.target_mask.sum()) == 0
