"""Losses in tiles against their formulas on the whole matrix."""

from __future__ import annotations

import math
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
from training.models.heads import build_head, dual
from training.objectives.pairs import build_loss, ntxent, siglip, tiling
from training.objectives.pairs.base import Temperature
from training.objectives.pairs.tiled import Items, global_loss


def by_formula(kind: str, logits: Tensor, relation: Tensor) -> Tensor:
    """The losses' docstrings, on the whole matrix."""
    positive = relation == 1
    if kind == "siglip":
        signed = torch.where(positive, logits, -logits)
        return -(F.logsigmoid(signed) * (relation >= 0)).sum() / len(logits)
    kept = logits.masked_fill(relation < 0, -torch.inf)
    directions = [-((kept.log_softmax(d).masked_fill(~positive, 0)).sum(d) / positive.sum(d)).mean() for d in (0, 1)]
    return (directions[0] + directions[1]) / 2


def problem(seed: int, samples: int, clips: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(2, samples, 4, generator=generator, dtype=torch.float64)
    text, audio = F.normalize(sides, dim=-1).to(dtype)
    ids = torch.randint(0, clips, (samples, 4), generator=generator)
    return text.requires_grad_(), audio.requires_grad_(), ids


HEAD = build_head(dual.Settings(dim=4), 4, 4)


@pytest.mark.parametrize("kind", ["ntxent", "siglip"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    samples=st.integers(1, 20),
    clips=st.integers(1, 40),
    tile=st.integers(1, 200),
    positives=st.sampled_from(["clip or caption", "clip"]),
    tau=st.sampled_from([0.02, 0.05, 0.5]),
)
def test_tiles_of_any_size_give_the_formula(
    kind: str, seed: int, samples: int, clips: int, tile: int, positives: Any, tau: float
) -> None:
    modules = {"ntxent": ntxent, "siglip": siglip}
    loss = build_loss(modules[kind].Settings(tau=tau, trainable_tau=True, positives=positives)).double()
    text, audio, ids = problem(seed, samples, clips, torch.float64)
    asked = [text, audio, *loss.parameters()]
    with mock.patch.object(tiling, "tile_elements", return_value=tile):
        got = global_loss(HEAD, loss, Items((text,), ids), Items((audio,), ids), LocalGroup())
    found = torch.autograd.grad(got, asked)
    wanted = by_formula(kind, loss.logits(text @ audio.t(), *loss()), relations(ids, ids, positives))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    for one, other in zip(found, torch.autograd.grad(wanted, asked), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["ntxent", "siglip"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    """bfloat16 sides are rounded, but what is computed from them is not: it equals float64 on the same sides."""
    modules = {"ntxent": ntxent, "siglip": siglip}
    loss = build_loss(modules[kind].Settings())
    text, audio, ids = problem(4, 50, 30, dtype)
    with mock.patch.object(tiling, "tile_elements", return_value=64):
        got = global_loss(HEAD, loss, Items((text,), ids), Items((audio,), ids), LocalGroup())
    gradient = torch.autograd.grad(got, text)[0]
    exact = text.detach().double().requires_grad_()
    numbers = tuple(number.detach().double() for number in loss())
    wanted = by_formula(kind, loss.logits(exact @ audio.detach().double().t(), *numbers), relations(ids, ids))
    wanted_gradient = torch.autograd.grad(wanted, exact)[0]
    assert got.dtype == torch.float32 and gradient.dtype == dtype
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float((gradient - wanted_gradient).abs().max() / wanted_gradient.abs().max()) < tolerance


def test_single_positives_are_symmetric_cross_entropy() -> None:
    text, audio, _ = problem(1, 9, 1, torch.float64)
    ids = torch.arange(9)[:, None].expand(9, 4)
    got = global_loss(HEAD, build_loss(ntxent.Settings()), Items((text,), ids), Items((audio,), ids), LocalGroup())
    logits, labels = text @ audio.t() / 0.05, torch.arange(9)
    wanted = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 3e4])
def test_logits_of_any_size_are_finite_and_right(scale: float) -> None:
    """A score without bounds must neither overflow nor vanish in the shared exponential."""
    text, audio, ids = problem(2, 24, 60, torch.float32)
    loss = build_loss(ntxent.Settings())
    large = (text.detach() * scale).requires_grad_()
    with mock.patch.object(tiling, "tile_elements", return_value=50):
        got = global_loss(HEAD, loss, Items((large,), ids), Items((audio,), ids), LocalGroup())
    gradient = torch.autograd.grad(got, large)[0]
    exact = large.detach().double().requires_grad_()
    wanted = by_formula("ntxent", exact @ audio.detach().double().t() / 0.05, relations(ids, ids))
    expected = torch.autograd.grad(wanted, exact)[0]
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_kin_are_never_negatives() -> None:
    """The loss does not move when two kin come closer, however close."""
    ids = torch.tensor([[1, 1, 1, 7], [2, 2, 2, 7], [3, 3, 3, 8]])
    text, audio = torch.eye(3), torch.eye(3).requires_grad_()
    value = global_loss(HEAD, build_loss(ntxent.Settings()), Items((text,), ids), Items((audio,), ids), LocalGroup())
    gradient = torch.autograd.grad(value, audio)[0]
    assert gradient[1, 0] == 0 and gradient[0, 1] == 0 and gradient[2, 0] != 0


def test_temperature_stays_inside_its_bounds_and_can_return() -> None:
    temperature = Temperature(0.05, trainable=True)
    assert float(temperature().detach()) == pytest.approx(20, rel=1e-5)
    assert temperature.raw is not None and temperature.raw.shape == (1,)
    for far in (-8.0, 8.0):
        temperature.raw.data.fill_(far)
        scale = temperature()
        assert 1 <= float(scale.detach()) <= 100
        assert float(torch.autograd.grad(scale, temperature.raw)[0]) > 0
    assert math.isclose(float(Temperature(0.05, trainable=False)()), 20)


@pytest.mark.parametrize(
    ("tau", "trainable"), [(0.0, False), (-1.0, False), (1e-50, False), (math.inf, False), (2.0, True), (0.001, True)]
)
@pytest.mark.parametrize("loss", [ntxent, siglip])
def test_impossible_temperatures_are_refused(loss: Any, tau: float, trainable: bool) -> None:
    with pytest.raises(InputError, match="tau"):
        loss.Settings(tau=tau, trainable_tau=trainable)
