"""The tiled engine's promises beyond the registered losses: any loss by the chain rule, uneven sides, teachers."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.engine.distributed import LocalGroup
from training.models.heads.base import DotProduct
from training.objectives.pairs import build_loss, distillation, ntxent, siglip, tiling
from training.objectives.pairs.base import PairLoss, Statistics, Tile
from training.objectives.pairs.tiled import Items, Teacher, global_loss


class PlainNTXent(ntxent.NTXent):
    """NT-Xent without the gradient by hand: the statistics in plain autograd."""

    by_hand = False

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        kept = tile.logits.masked_fill(tile.left_out(), -torch.inf)
        pulled = tile.logits.masked_fill(~tile.positive(), 0)
        return tuple(  # type: ignore[return-value]
            {"lse": kept.logsumexp(d), "positives": tile.positive().sum(d).to(kept), "pull": pulled.sum(d)}
            for d in (1, 0)
        )


class PlainSigLIP(siglip.SigLIP):
    by_hand = False

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        signed = torch.where(tile.positive(), -tile.logits, tile.logits)
        return {"loss": F.softplus(signed).masked_fill(tile.left_out(), 0).sum(1)}, {}


def vectors(seed: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(rows + columns, 4, generator=generator, dtype=torch.float64)
    return tuple(part.clone().requires_grad_() for part in F.normalize(both, dim=-1).split((rows, columns)))  # type: ignore[return-value]


def value_and_gradients(
    loss: PairLoss, rows: Items, columns: Items, tile: int, teachers: tuple[Teacher, ...] = ()
) -> list[Tensor]:
    with mock.patch.object(tiling, "tile_elements", return_value=tile):
        value = global_loss(DotProduct(), loss, rows, columns, LocalGroup(), teachers)
    asked = [rows.side[0], columns.side[0], *loss.parameters()]
    return [value.detach(), *torch.autograd.grad(value, asked, allow_unused=True)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 12),
    columns=st.integers(1, 16),
    clips=st.integers(1, 20),
    tile=st.integers(1, 60),
    positives=st.sampled_from(["clip or caption", "clip", "published"]),
    directions=st.sampled_from(["both", "rows", "columns"]),
)
def test_the_gradient_by_hand_is_that_of_autograd(
    seed: int, rows: int, columns: int, clips: int, tile: int, positives: str, directions: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, clips, (rows + columns, 4), generator=generator).split((rows, columns))
    sides = vectors(seed, rows, columns)
    pairs = [Items((side,), own) for side, own in zip(sides, ids, strict=True)]
    entropy = ntxent.Settings(trainable_tau=True, positives=positives, directions=directions)  # type: ignore[arg-type]
    sigmoid = siglip.Settings(positives="clip" if positives == "published" else positives)  # type: ignore[arg-type]
    for one, other in (
        (ntxent.NTXent(entropy), PlainNTXent(entropy)),
        (siglip.SigLIP(sigmoid), PlainSigLIP(sigmoid)),
    ):
        found = value_and_gradients(one.double(), *pairs, tile)
        expected = value_and_gradients(other.double(), *pairs, 7)
        for mine, plain in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9)


class Counted(DotProduct):
    """Counts how often pairs were scored."""

    def __init__(self) -> None:
        self.calls = 0

    def pair_scores(self, rows: tuple[Tensor, ...], columns: tuple[Tensor, ...], shared: tuple[Tensor, ...]) -> Tensor:
        self.calls += 1
        return super().pair_scores(rows, columns, shared)


@pytest.mark.parametrize("loss", [ntxent.NTXent(ntxent.Settings()), PlainNTXent(ntxent.Settings())])
def test_scores_of_a_single_tile_are_computed_once_and_those_of_several_twice(loss: PairLoss) -> None:
    anchors, candidates = vectors(3, 6, 6)
    ids = torch.arange(6)[:, None].expand(6, 4)
    found = []
    for elements, calls in ((36, 1), (12, 8)):
        scorer = Counted()
        with mock.patch.object(tiling, "tile_elements", return_value=elements):
            value = global_loss(scorer, loss, Items((anchors,), ids), Items((candidates,), ids), LocalGroup())
        found.append(torch.autograd.grad(3 * value, (anchors, candidates), retain_graph=True))
        assert scorer.calls == calls
        again = torch.autograd.grad(value, (anchors, candidates))  # a second backward pass of the same graph
        for one, other in zip(found[-1], again, strict=True):
            torch.testing.assert_close(one, 3 * other, rtol=1e-12, atol=1e-12)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_columns_without_a_positive_are_negatives_and_nothing_else() -> None:
    """Hard negatives: three anchors, their partners, and three sentences that belong to no anchor."""
    anchors, candidates = vectors(3, 3, 6)
    ids = torch.arange(6)[:, None].expand(6, 4)
    loss = build_loss(ntxent.Settings(positives="clip"))
    got = global_loss(DotProduct(), loss, Items((anchors,), ids[:3]), Items((candidates,), ids), LocalGroup())
    logits = anchors @ candidates.t() / 0.05
    by_anchor = F.cross_entropy(logits, torch.arange(3))
    by_partner = F.cross_entropy(logits[:, :3].t(), torch.arange(3))
    torch.testing.assert_close(got, (by_anchor + by_partner) / 2, rtol=1e-12, atol=0)
    gradient = torch.autograd.grad(got, candidates)[0]
    assert gradient.isfinite().all() and gradient[3:].abs().sum() > 0


def test_nothing_positive_at_all_is_a_loss_of_zero() -> None:
    rows, columns = vectors(1, 2, 3)
    ids = torch.arange(5)[:, None].expand(5, 4)
    pairs = Items((rows,), ids[:2]), Items((columns,), ids[2:])
    found = value_and_gradients(build_loss(ntxent.Settings(positives="clip")), *pairs, 100)
    assert all(float(tensor.abs().sum()) == 0 for tensor in found)


def test_the_published_form_averages_over_pairs_and_keeps_kin_as_negatives() -> None:
    rows, columns = vectors(5, 4, 4)
    ids = torch.tensor([[0, 0, 0, 9], [0, 1, 0, 9], [2, 2, 2, 9], [3, 3, 3, 3]])  # a clip twice, and one of its kin
    loss = build_loss(ntxent.Settings(positives="published"))
    got = global_loss(DotProduct(), loss, Items((rows,), ids), Items((columns,), ids), LocalGroup())
    logits, positive = rows @ columns.t() / 0.05, ids[:, :1] == ids[:, 0]
    wanted = -(logits.log_softmax(1)[positive].mean() + logits.log_softmax(0)[positive].mean()) / 2
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), samples=st.integers(1, 12), tile=st.integers(1, 60), tau=st.sampled_from([0.02, 0.3])
)
def test_distillation_is_the_cross_entropy_to_the_averaged_teachers(
    seed: int, samples: int, tile: int, tau: float
) -> None:
    rows, columns = vectors(seed, samples, samples)
    taught = [vectors(seed + 1 + number, samples, samples) for number in range(2)]
    ids = torch.arange(samples)[:, None].expand(samples, 4)
    teachers = tuple(Teacher(DotProduct(), (r,), (c,)) for r, c in taught)
    loss = distillation.Distillation(distillation.Settings(tau=0.05, teacher_tau=tau, trainable_tau=True)).double()
    found = value_and_gradients(loss, Items((rows,), ids), Items((columns,), ids), tile, teachers)
    teacher = sum((r @ c.t()).detach() for r, c in taught) / 2 / tau
    student = loss.logits(rows @ columns.t(), *loss())
    wanted = sum(-(teacher.softmax(d) * student.log_softmax(d)).sum(d).mean() / 2 for d in (1, 0))
    expected = [wanted.detach(), *torch.autograd.grad(wanted, [rows, columns, *loss.parameters()])]  # type: ignore[union-attr]
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9)


def test_a_loss_that_needs_a_teacher_says_so() -> None:
    rows, columns = vectors(0, 2, 2)
    ids = torch.arange(2)[:, None].expand(2, 4)
    with pytest.raises(InputError, match="needs a teacher's scores"):
        global_loss(
            DotProduct(),
            distillation.Distillation(distillation.Settings()),
            Items((rows,), ids),
            Items((columns,), ids),
            LocalGroup(),
        )
