"""Alignment and uniformity of vectors whose figures are known, of the whole global batch."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sharding.common.processes import leave
from tests.training.ranks import on_ranks
from training.engine.distributed import LocalGroup, TorchGroup
from training.tasks.health import alignment_and_uniformity


def test_equal_vectors_are_aligned_and_collapsed() -> None:
    same = torch.ones(4, 3)
    assert alignment_and_uniformity(same, same, LocalGroup()) == {"alignment": 0.0, "uniformity": 0.0}


def test_opposite_vectors_have_the_figures_of_the_paper() -> None:
    clips = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = alignment_and_uniformity(clips, -clips, LocalGroup())
    assert found["alignment"] == pytest.approx(4.0)
    assert found["uniformity"] == pytest.approx(math.log(math.exp(-2 * 4)))


def test_a_single_clip_has_no_uniformity() -> None:
    assert alignment_and_uniformity(torch.ones(1, 3), torch.ones(1, 3), LocalGroup()) == {"alignment": 0.0}


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.randn(14, 5, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(both, dim=-1).split((7, 7))  # type: ignore[return-value]


def measure(rank: int, world: int, folder: str) -> None:
    store, patience = f"file://{folder}/store", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=patience)
    clips, captions = vectors()
    mine = slice(0, 5) if rank == 0 else slice(5, 7)
    found = alignment_and_uniformity(clips[mine], captions[mine], TorchGroup())
    if rank == 0:
        Path(folder, "found").write_text(json.dumps(found))
    dist.destroy_process_group()
    leave(0)


def test_two_ranks_measure_the_global_batch(tmp_path: Path) -> None:
    on_ranks(measure, 2, 2, str(tmp_path))
    clips, captions = vectors()
    expected = alignment_and_uniformity(clips, captions, LocalGroup())
    assert json.loads((tmp_path / "found").read_text()) == pytest.approx(expected, rel=1e-6)
    distances = torch.pdist(clips.double()).square()
    assert expected["uniformity"] == pytest.approx(float(distances.mul(-2).exp().mean().log()), rel=1e-6)
