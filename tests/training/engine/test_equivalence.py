"""N ranks equal one: loss and every gradient, for every registered head and loss (promise 7).

The proof is written over the registries: a new head or loss takes part by being registered.  One process group
a world size runs all cases of that size.  Each case cuts one global batch unevenly over the ranks, and compares
the loss and the rank-averaged gradients with those of one process that holds the whole batch.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import itertools
import traceback
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sharding.common.processes import leave
from tests.training.ranks import on_ranks
from training.engine.distributed import Group, LocalGroup, TorchGroup
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import HEADS, build_head
from training.models.heads.base import DotProduct
from training.objectives.pairs import LOSSES, tiling
from training.objectives.pairs.tags import pack
from training.objectives.pairs.tiled import Items, Teacher, global_loss

OBJECTIVES = LOSSES | {"distillation": "training.objectives.pairs.distillation"}
SMALL = {"dim": 8, "heads": 2, "dropout": 0.0}
AUDIO_DIM, TEXT_DIM = 6, 8
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class Case:
    head: Any
    loss: Any
    rows: tuple[int, ...]  # samples on each rank
    frozen: str = ""  # parts without gradient
    cached: bool = False
    few: bool = False  # the head is told that clips are few
    dtype: torch.dtype = torch.float64

    @property
    def name(self) -> str:
        head, loss = (_differences(settings) for settings in (self.head, self.loss))
        rows = "-".join(map(str, self.rows))
        parts = [
            head,
            loss,
            rows,
            f"frozen {self.frozen}" * bool(self.frozen),
            "cached" * self.cached,
            "few" * self.few,
        ]
        return " ".join(part for part in (*parts, str(self.dtype)[6:]) if part)


def _differences(settings: Any) -> str:
    changed = [
        f"{field.name}={getattr(settings, field.name)}"
        for field in dataclasses.fields(settings)
        if field.name not in SMALL and field.name != "name" and getattr(settings, field.name) != field.default
    ]
    return ":".join([settings.name, *changed])


def variants(module: str) -> list[Any]:
    """A component's small default settings, and each with one choice made otherwise."""
    kind = importlib.import_module(module).Settings
    names = {field.name for field in dataclasses.fields(kind)}
    small = dataclasses.replace(kind(), **{key: value for key, value in SMALL.items() if key in names})
    found = [small]
    for name, hint in typing.get_type_hints(kind).items():
        options = (False, True) if hint is bool else typing.get_args(hint)
        if hint is bool or typing.get_origin(hint) is typing.Literal:
            found += [dataclasses.replace(small, **{name: v}) for v in options if v != getattr(small, name)]
    return found


def splits(world: int) -> list[tuple[int, ...]]:
    """Even, uneven, and with an empty rank: 12 samples each."""
    uneven = tuple(12 - 2 * (world - 1) if rank == 0 else 2 for rank in range(world))
    empty = tuple(12 if world == 1 else (12 if rank == world - 1 else 0) for rank in range(world))
    return list(dict.fromkeys([(12 // world,) * world, uneven, empty]))


def fast_cases(world: int) -> list[Case]:
    """Every head and loss once, unevenly cut; every way to cut with the first of them."""
    heads = [variants(module)[0] for module in HEADS.values()]
    losses = [variants(module)[0] for module in OBJECTIVES.values()]
    few = variants(HEADS["token-attention"])[0]
    rows = splits(world)
    cases = [Case(head, loss, rows[1 % len(rows)]) for head, loss in itertools.product(heads, losses)]
    cases += [Case(heads[0], losses[0], cut, cached=cached) for cut in rows for cached in (False, True)]
    cases += [Case(heads[0], losses[0], rows[0], frozen=part) for part in ("audio", "text", "head")]
    cases += [Case(few, losses[0], rows[1 % len(rows)], cached=cached, few=True) for cached in (False, True)]
    return list(dict.fromkeys([*cases, Case(heads[0], losses[0], rows[0], dtype=torch.float32)]))


def all_cases(world: int) -> list[Case]:
    """Every head with every loss under every cut, plain and cached, with frozen parts and in float32; every variant
    of every head and loss unevenly cut, and cached with an empty rank.
    """
    heads = [variants(module) for module in HEADS.values()]
    losses = [variants(module) for module in OBJECTIVES.values()]
    cuts, cases = splits(world), []
    for head, loss in itertools.product([found[0] for found in heads], [found[0] for found in losses]):
        cases += [Case(head, loss, cut, cached=cached) for cut in cuts for cached in (False, True)]
        cases += [Case(head, loss, cuts[0], frozen=part) for part in ("audio", "text", "head")]
        cases.append(Case(head, loss, cuts[0], dtype=torch.float32))
    for few in variants(HEADS["token-attention"]):
        cases += [Case(few, losses[0][0], cuts[-1], cached=cached, few=True) for cached in (False, True)]
        cases += [Case(few, losses[0][0], cuts[0], frozen=part, few=True) for part in ("audio", "text", "head")]
    others = [(head, loss[0]) for found in heads for head in found[1:] for loss in losses]
    others += [(heads[0][0], loss) for found in losses for loss in found[1:]]
    for head, loss in others:
        cases += [Case(head, loss, cuts[1 % len(cuts)]), Case(head, loss, cuts[-1], cached=True)]
    return cases


class TinyModel(nn.Module):
    """Two one-layer encoders, a head and a loss."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.audio = nn.Linear(5, AUDIO_DIM)
        self.text = nn.Embedding(20, TEXT_DIM)
        self.head = build_head(case.head, AUDIO_DIM, TEXT_DIM)
        self.head.global_batch = int(case.few)
        self.loss = importlib.import_module(OBJECTIVES[case.loss.name]).build(case.loss)
        self.to(case.dtype)
        for name, part in self.named_children():
            if name == case.frozen:
                part.requires_grad_(False)

    def audio_side(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        sound, mask = batch["sound"], batch["sound_mask"]
        patches = self.audio(sound.flatten(1, 2)).tanh()
        patch_mask = mask[..., None].expand(sound.shape[:3]).flatten(1, 2)
        segments = self.audio(sound.mean(2)).tanh()
        return self.head(EncodedAudio(segments, mask, patches, patch_mask))

    def text_side(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return self.head(EncodedText(self.text(batch["tokens"]), batch["token_mask"]))


def global_batch(dtype: torch.dtype) -> dict[str, Tensor]:
    """12 samples: clips, captions, groups, kin and tags that recur all over the batch; padding of any length."""
    generator = torch.Generator().manual_seed(11)
    clip = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 8, 9])
    caption = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3])
    group = torch.tensor([0, 1, 2, 3, 4, 4, 6, 7, 0, 1, 8, 6])
    kin = torch.tensor([0, 1, 2, 3, 4, 4, 6, 7, 0, 1, 7, 6])
    tags = [[0], [0], [0, 64], [64], [], [3], [0, 64], [], [0], [0], [3], [64]]
    lengths = torch.tensor([1, 2, 3, 4, 5, 5, 1, 2, 3, 4, 2, 1])
    segments = torch.tensor([1, 2, 3, 3, 2, 1, 1, 1, 2, 3, 2, 1])
    return {
        "sound": torch.randn(12, 3, 2, 5, generator=generator, dtype=torch.float64).to(dtype),
        "sound_mask": torch.arange(3) < segments[:, None],
        "tokens": torch.randint(0, 20, (12, 5), generator=generator),
        "token_mask": torch.arange(5) < lengths[:, None],
        "taught": torch.randn(12, 2, 4, generator=generator, dtype=torch.float64).to(dtype) / 4,
        "ids": torch.cat((torch.stack((clip, caption, group, kin), 1) * 2**55 - 2**57, pack(tags, 65)), 1),
    }


def _share(batch: dict[str, Tensor], rows: tuple[int, ...], rank: int) -> dict[str, Tensor]:
    """A rank's samples, in another order than one process has them, and cut to their longest."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    mine = order[sum(rows[:rank]) : sum(rows[: rank + 1])]
    part = {key: value[mine] for key, value in batch.items()}
    longest = int(part["token_mask"].sum(1).max()) if len(mine) else 1
    segments = int(part["sound_mask"].sum(1).max()) if len(mine) else 1
    cuts = {"tokens": longest, "token_mask": longest, "sound": segments, "sound_mask": segments}
    return {key: value[:, : cuts[key]] if key in cuts else value for key, value in part.items()}


def loss_and_gradients(
    case: Case, batch: dict[str, Tensor], group: Group, tile_pairs: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of this rank; gradients are averaged over the group, as DeepSpeed does.

    A loss whose gradient is divided by the number of ranks, as its published code has it, is multiplied by it here.
    """
    model = TinyModel(case)
    if case.cached:
        with torch.no_grad():
            sides = [model.text_side(batch), model.audio_side(batch)]
        elements = tile_pairs * model.head.pair_elements(*sides)
        leaves = [tuple(t.clone().requires_grad_(t.is_floating_point()) for t in side) for side in sides]
        loss = _loss(model, leaves, batch, group, elements)
        loss.backward()
        for chunk in torch.arange(len(batch["ids"])).split(2):
            part = {key: value[chunk] for key, value in batch.items()}
            for side, leaf in zip((model.text_side(part), model.audio_side(part)), leaves, strict=True):
                asked = [(s, x.grad[chunk]) for s, x in zip(side, leaf, strict=True) if s.requires_grad]
                if asked:
                    torch.autograd.backward(*zip(*asked, strict=True))
    else:
        sides = [model.text_side(batch), model.audio_side(batch)]
        elements = tile_pairs * model.head.pair_elements(*sides)
        loss = _loss(model, sides, batch, group, elements)
        loss.backward()
    divisor = 1 if model.loss.gradient_per_rank else group.size
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained.values()]
    whole = group.sum(torch.cat([gradient.flatten() for gradient in own]), "gradients") / divisor  # at once: quicker
    parts = whole.split([gradient.numel() for gradient in own])
    return loss.detach(), {name: part.view_as(p) for (name, p), part in zip(trained.items(), parts, strict=True)}


def _loss(model: TinyModel, sides: list[Any], batch: dict[str, Tensor], group: Group, elements: int) -> Tensor:
    with mock.patch.object(tiling, "tile_elements", return_value=elements):
        rows, columns = (Items(side, batch["ids"]) for side in sides)
        taught = Teacher(DotProduct(), *((vectors,) for vectors in batch["taught"].unbind(1)))
        return global_loss(model.head, model.loss, rows, columns, group, [taught] * model.loss.needs_teacher)


def alone(case: Case) -> Case:
    """The case as one process computes it that holds the whole batch."""
    return dataclasses.replace(case, rows=(12,), cached=False)


@functools.cache
def one_rank(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """What one process finds that holds the whole batch, in a single tile."""
    return loss_and_gradients(case, global_batch(case.dtype), LocalGroup(), tile_pairs=1000)


def disagreement(case: Case, expected: tuple[Tensor, dict[str, Tensor]], group: Group) -> str:
    """Empty if this rank's loss and the averaged gradients equal those of one process, else what differs."""
    one_loss, one = expected
    mine = _share(global_batch(case.dtype), case.rows, group.rank)
    loss, gradients = loss_and_gradients(case, mine, group, tile_pairs=10)
    worst = {"loss": float((loss - one_loss).abs() / one_loss.abs())}
    scale = max(float(g.abs().max()) for g in one.values())
    worst |= {name: float((gradients[name] - g).abs().max()) / scale for name, g in one.items()}
    wrong = {name: error for name, error in worst.items() if not error <= TOLERANCE[case.dtype]}
    return f"rank {group.rank}: {wrong}" if wrong else ""


def _run_rank(rank: int, world: int, folder: str, cases: list[Case]) -> None:
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    group = TorchGroup()
    expected = torch.load(f"{folder}/expected")
    found: dict[str, str] = {}
    for case in cases:
        try:
            found[case.name] = disagreement(case, expected[alone(case).name], group)
        except Exception:
            found[case.name] = traceback.format_exc()
    every = group.gather_objects(found)
    results = {name: "\n".join(filter(None, (one[name] for one in every))) for name in found}
    if rank == 0:
        torch.save(results, f"{folder}/results")
    dist.destroy_process_group()
    leave(0)


def prove(world: int, cases: list[Case], folder: Path) -> None:
    torch.save({one.name: one_rank(one) for one in map(alone, cases)}, folder / "expected")
    on_ranks(_run_rank, world, world, str(folder), cases)
    results: dict[str, str] = torch.load(folder / "results")
    wrong = {name: found for name, found in results.items() if found}
    assert len(results) == len(cases)
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    prove(2, fast_cases(2), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_combination_equals_one_rank(world: int, tmp_path: Path) -> None:
    prove(world, all_cases(world), tmp_path)
