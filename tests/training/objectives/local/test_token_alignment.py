"""The loss between the tokens of captions and clips, by hand, and through whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharding.shards.manifest import Manifest
from tests.training.small_runs import figures, lines, run_ranks, small_recipe
from training.engine.distributed import Group
from training.models.encoders import EncodedAudio, EncodedText
from training.objectives.local.token_alignment import TokenAlignment
from training.run.loop import fit

ALIGNED = ["alignment.weight=0.5", "optimizer.steps=4", "optimizer.warmup_epochs=0"]


def test_each_word_is_compared_with_its_nearest_sound_and_padding_counts_nowhere() -> None:
    loss = TokenAlignment(2, 2)
    with torch.no_grad():
        loss.projection.weight.copy_(torch.eye(2))
        loss.projection.bias.zero_()
    sounds = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[1.0, 1.0], [-5.0, -5.0]]])
    real = torch.tensor([[True, True], [True, False]])
    audio = EncodedAudio(sounds, torch.ones(2, 2, dtype=torch.bool), sounds, real)
    words = torch.tensor([[[0.0, 1.0], [1.0, 1.0]], [[-1.0, -1.0], [9.0, 9.0]]])
    text = EncodedText(words, real, words[:, 0])
    total, count = loss(audio, text)
    assert float(count) == 3
    # the first word is heard exactly; the second at 45 degrees; the third is opposite to the only real sound
    assert float(total.detach()) == pytest.approx(0 + (1 - 0.5**0.5) + 2, abs=1e-6)


def test_ranks_chunks_and_resumed_runs_align_like_one(build: Path, group: Group, tmp_path: Path) -> None:
    runs = {"plain": ALIGNED, "chunks": [*ALIGNED, "engine.chunk=2", "engine.zero=3"]}
    for ranks in (1, 2):
        run_ranks(ranks, build, {f"{name} {ranks}": run for name, run in runs.items()}, tmp_path)
    expected = lines(tmp_path / "plain 1")
    parts = expected[0]["loss_parts"]
    assert expected[0]["loss"] == pytest.approx(parts["ntxent"] + 0.5 * parts["alignment of tokens"])
    for name in ("chunks 1", "plain 2", "chunks 2"):
        assert [line["loss"] for line in lines(tmp_path / name)] == pytest.approx(
            [line["loss"] for line in expected], rel=1e-4
        ), name

    class Killed(Exception):
        pass

    def kill(state: dict) -> None:
        if state["step"] == 2:
            raise Killed

    recipe = small_recipe([*ALIGNED, "checkpoint.every=2"])
    with pytest.raises(Killed):
        fit(recipe, Manifest.open(build), tmp_path / "parts", group, kill)
    fit(recipe, Manifest.open(build), tmp_path / "parts", group)
    fit(recipe, Manifest.open(build), tmp_path / "whole", group)
    assert figures(tmp_path / "parts") == figures(tmp_path / "whole")
