"""Hybrid-NCE in tiles against its formulas on the whole matrix, and what it is where it is something simpler."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from tests.training.objectives.pairs.dense import relations
from training.engine.distributed import LocalGroup
from training.models.heads.base import DotProduct
from training.objectives.pairs import build_loss, ntxent, tiling
from training.objectives.pairs.hybrid_nce import Settings
from training.objectives.pairs.relations import stack_ids
from training.objectives.pairs.tags import overlap, pack
from training.objectives.pairs.tiled import Items, global_loss

CLUSTERS = 70  # two words


def problem(seed: int, rows: int, columns: int, clips: int, tags: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, columns and their ids: clips, captions and kin recur, and sets of tags are small and often equal."""
    generator = torch.Generator().manual_seed(seed)
    sides = F.normalize(torch.randn(rows + columns, 4, generator=generator, dtype=torch.float64), dim=-1)
    numbers = torch.randint(0, clips, (rows + columns, 4), generator=generator)
    some = torch.randint(0, 4, (rows + columns, tags), generator=generator).tolist()
    words = pack([[60 + number for number in each if number] for each in some], CLUSTERS)
    ids = stack_ids(*numbers.unbind(1), words)
    left, right = sides.split((rows, columns))
    return left.clone().requires_grad_(), right.clone().requires_grad_(), *ids.split((rows, columns))


def by_formula(options: Settings, scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The module's docstring, on the whole matrix."""
    kinds = relations(rows, columns, options.positives)
    sets = [
        [{n for n in range(128) if int(each[4 + n // 64]) >> (n % 64) & 1} for each in ids] for ids in (rows, columns)
    ]
    iou = torch.tensor([[len(a & b) / max(1, len(a | b)) for b in sets[1]] for a in sets[0]], dtype=scores.dtype)
    total = scores.new_zeros(())
    for axis in (0, 1):
        terms = []
        for logits, kind, similar in zip(
            *(m if axis else m.t() for m in (scores / options.tau, kinds, iou)), strict=True
        ):
            positive = kind == 1
            tagged = (kind == 0) & (similar >= options.least_iou) & (options.tag_weight > 0)
            negative = (kind == 0) & ~tagged
            if not positive.any():
                continue
            extra = options.tag_weight * (similar * logits.exp())[tagged].sum()
            above = logits[positive].mean().exp() + extra
            weights = (options.beta * logits[negative]).exp()
            if options.weights == "fixed":
                weights = weights.detach()
            weights = int(negative.sum()) * weights / weights.sum()
            below = options.alpha * (logits[positive].exp().sum() + extra) + (weights * logits[negative].exp()).sum()
            terms.append(-(above / below).log())
        if terms:
            total = total + torch.stack(terms).mean() / 2
    return total


def tiles(loss: Any, rows: Items, columns: Items, tile: int) -> Tensor:
    with mock.patch.object(tiling, "tile_elements", return_value=tile):
        return global_loss(DotProduct(), loss, rows, columns, LocalGroup())


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 9),
    columns=st.integers(1, 12),
    clips=st.integers(1, 30),
    tile=st.integers(1, 80),
    options=st.builds(
        Settings,
        tau=st.sampled_from([0.05, 0.5]),
        alpha=st.sampled_from([0.3, 1.0, 2.0]),
        beta=st.sampled_from([0.0, 0.1, 2.0]),
        tag_weight=st.sampled_from([0.0, 0.2, 3.0]),
        least_iou=st.sampled_from([0.3, 0.5, 1.0]),
        weights=st.sampled_from(["with gradient", "fixed"]),
        positives=st.sampled_from(["clip", "clip or caption"]),
    ),
)
def test_tiles_of_any_size_give_the_formula_in_both_directions(
    seed: int, rows: int, columns: int, clips: int, tile: int, options: Settings
) -> None:
    left, right, left_ids, right_ids = problem(seed, rows, columns, clips, 2)
    got = tiles(build_loss(options), Items((left,), left_ids), Items((right,), right_ids), tile)
    wanted = by_formula(options, left @ right.t(), left_ids, right_ids)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    if not wanted.requires_grad:
        return
    found = torch.autograd.grad(got, [left, right])
    for one, other in zip(found, torch.autograd.grad(wanted, [left, right]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 10),
    clips=st.integers(1, 20),
    positives=st.sampled_from(["clip", "clip or caption"]),
)
def test_without_tags_and_hard_negatives_it_is_ntxent(seed: int, rows: int, clips: int, positives: Any) -> None:
    """Whatever recurs in the batch, and whatever tags the items have."""
    left, right, left_ids, right_ids = problem(seed, rows, rows, clips, 2)
    items = Items((left,), left_ids), Items((right,), right_ids)
    hybrid = Settings(alpha=1, beta=0, tag_weight=0, positives=positives, trainable_tau=True)
    values = []
    for options in (hybrid, ntxent.Settings(positives=positives, trainable_tau=True)):
        loss = build_loss(options).double()
        value = tiles(loss, *items, 30)
        values.append([value, *torch.autograd.grad(value, [left, right, *loss.parameters()])])
    for one, other in zip(*values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def published(audio: Tensor, text: Tensor, options: Settings, masks: Tensor) -> Tensor:
    """What AuroLA's repository computes, from audio to text, with its multi-hot masks ``[b, C]``."""
    common = masks @ masks.t()
    union = masks.sum(1)[:, None] + masks.sum(1) - common
    own = torch.eye(len(masks), dtype=torch.bool)
    same = ((common == union) & (common > 0)) | own
    weights = torch.where(own, 1.0, options.tag_weight) * same
    scores = audio @ text.t()
    exponentials = (scores / options.tau).exp()
    positive = (exponentials * weights).sum(1)
    hardness = (options.beta / options.tau * scores).exp() * ~same
    hard = (~same).sum(1, keepdim=True) * hardness / (hardness.sum(1, keepdim=True) + 1e-8)
    return -(positive / (options.alpha * positive + (exponentials * hard).sum(1) + 1e-8)).log().mean()


@pytest.mark.parametrize("tag_weight", [0.0, 0.2])
def test_released_is_the_published_code(tag_weight: float) -> None:
    left, right, _, _ = problem(7, 8, 8, 1, 1)
    numbers = torch.arange(8)
    sets: list[list[int]] = [[1], [1], [2, 69], [2, 69], [2], [], [], [3]]
    ids = stack_ids(numbers, numbers, numbers // 2, numbers // 2, pack(sets, CLUSTERS))
    options = Settings(released=True, tag_weight=tag_weight)
    masks = torch.zeros(8, CLUSTERS, dtype=torch.float64)
    for row, each in enumerate(sets):
        masks[row, each] = 1
    got = tiles(build_loss(options), Items((left,), ids), Items((right,), ids), 20)
    wanted = published(right, left, options, masks)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=0)
    for one, other in zip(*(torch.autograd.grad(x, [left, right]) for x in (got, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_clips_with_equal_tags_attract_each_other() -> None:
    """With tags the gradient pulls a caption towards another clip of the same sound; without, it pushes."""
    numbers = torch.arange(3)
    sides = torch.eye(3, dtype=torch.float64)
    pulls = {}
    for weight in (0.0, 5.0):
        captions, clips = sides.clone().requires_grad_(), sides.clone()
        ids = stack_ids(*[numbers] * 4, pack([[4], [4], [9]], CLUSTERS))
        loss = build_loss(Settings(tag_weight=weight, tau=1.0))
        pulls[weight] = -torch.autograd.grad(tiles(loss, Items((captions,), ids), Items((clips,), ids), 100), captions)[
            0
        ]
    assert pulls[0.0][0, 1] < 0 < pulls[5.0][0, 1]
    assert pulls[5.0][0, 2] < 0


def test_logits_of_any_size_stay_finite() -> None:
    for scale in (1e-3, 1.0, 3e3):
        left, right, left_ids, right_ids = problem(3, 12, 12, 30, 2)
        rows = (left.detach().float() * scale).requires_grad_()
        loss = build_loss(Settings(beta=1.0))
        value = tiles(loss, Items((rows,), left_ids), Items((right.detach().float(),), right_ids), 50)
        assert value.isfinite() and torch.autograd.grad(value, rows)[0].isfinite().all()


@given(st.lists(st.sets(st.integers(0, 129)), min_size=1, max_size=8))
def test_overlap_is_intersection_over_union(sets: list[set[int]]) -> None:
    words = pack(sets, 130)
    assert words.shape == (len(sets), 3)
    found = overlap(words, words, torch.float64)
    for a, row in zip(sets, found.tolist(), strict=True):
        assert row == [len(a & b) / max(1, len(a | b)) for b in sets]


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"beta": -1.0}, {"least_iou": 0.0}, {"released": True, "least_iou": 0.5}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)
