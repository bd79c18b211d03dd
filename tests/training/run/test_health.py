"""Alignment and uniformity of vectors whose figures are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from training.engine.distributed import LocalGroup
from training.run.health import measure_health


def figures(clips: Tensor, captions: Tensor, embeds: bool = True) -> dict[str, float]:
    head: Any = SimpleNamespace(embedding=lambda side: side[0] if embeds else None)
    loss: Any = SimpleNamespace(health=lambda: {"tau": 0.05})
    return measure_health(head, loss, (clips,), (captions,), LocalGroup())


def test_equal_vectors_are_aligned_and_collapsed() -> None:
    same = torch.ones(4, 3)
    assert figures(same, same) == {"tau": 0.05, "alignment": 0.0, "uniformity": 0.0}


def test_opposite_vectors_have_the_figures_of_the_paper() -> None:
    clips = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = figures(clips, -clips)
    assert found["alignment"] == pytest.approx(4.0)
    assert found["uniformity"] == pytest.approx(math.log(math.exp(-2 * 4)))


def test_a_head_without_vectors_and_a_single_clip_have_only_the_losss_figures() -> None:
    assert figures(torch.ones(4, 3), torch.ones(4, 3), embeds=False) == {"tau": 0.05}
    assert figures(torch.ones(1, 3), torch.ones(1, 3)) == {"tau": 0.05}
