"""Heads whose tiles need parameters, where DeepSpeed has those in shards: the same steps as on one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import lines, run_ranks, write_sounds

HEADS = {
    "token": "{name: token-attention, dim: 16, heads: 2, audio: patches}",
    "few clips": "{name: token-attention, dim: 64, heads: 2}",
    "pooling": "{name: text-aware-pooling, dim: 16, audio: patches, dropout: 0.0}",
    "candidates": "{name: co-attention, dim: 16, heads: 2, candidates: 2}",
}
COMMON = ["optimizer.steps=2", "optimizer.warmup_epochs=0", "data.batch_size=7", "loss.trainable_tau=true"]
COMMON += ["lora.audio={rank: 2}", "optimizer.name=sgd", "optimizer.lr=0.05"]


@pytest.mark.slow
def test_heads_with_shared_tensors_train_alike_under_zero_3(tmp_path: Path) -> None:
    write_sounds(tmp_path / "build")
    whole = {name: [*COMMON, f"head={head}", "engine.zero=0"] for name, head in HEADS.items()}
    parts = {name: [*COMMON, f"head={head}", "engine.zero=3", "engine.chunk=2"] for name, head in HEADS.items()}
    for world, cases in ((1, whole), (2, parts)):
        run_ranks(world, tmp_path / "build", cases, tmp_path / str(world))
    for name in HEADS:
        for one, other in zip(lines(tmp_path / "1" / name), lines(tmp_path / "2" / name), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-5), name
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4), name
