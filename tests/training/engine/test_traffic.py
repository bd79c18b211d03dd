"""What a run says of the bytes that its ranks exchange."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import lines, run_ranks
from training.engine import checkpoint


def test_the_log_tells_what_deepspeed_moves(build: Path, tmp_path: Path) -> None:
    stages = {f"stage {zero}": [f"engine.zero={zero}", "optimizer.steps=2"] for zero in range(4)}
    run_ranks(2, build, stages, tmp_path)
    told = {}
    for name in stages:
        weights = checkpoint.load(checkpoint.find(tmp_path / name)).model()
        size = sum(4 * value.numel() for value in weights.values() if value.is_floating_point())
        told[name] = [line["engine_bytes_received"] / size for line in lines(tmp_path / name)]
    # of two ranks each gets the other's half of all gradients, and half of the sums; then weights that are sharded
    assert told["stage 0"] == pytest.approx([1, 1], rel=1e-3)
    assert told["stage 1"] == told["stage 2"] == pytest.approx([1.5, 1.5], rel=1e-3)
    assert min(told["stage 3"]) > 1.5
