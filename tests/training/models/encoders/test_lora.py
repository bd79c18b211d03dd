"""Adapters on every encoder: the same function at first, alone in what is trained, merged without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.models.encoders.test_encoders import (
    AUDIO,
    AUDIO_NAMES,
    CAPTIONS,
    TEXT_NAMES,
    audio_encoder,
    text_encoder,
    tokens_of,
)
from tests.training.small_runs import small_recipe, write_sounds
from training.engine import checkpoint
from training.engine.launch import ranks
from training.models import hub
from training.models.encoders.lora import Adapters, adapt, merge
from training.run.loop import fit


def audio_output(encoder: Any, name: str) -> torch.Tensor:
    torch.manual_seed(4)
    _, bins, frames = AUDIO[name]
    return encoder(torch.randn(2, bins, frames), torch.tensor([frames, frames // 2]), torch.arange(2))[0]


def trained(encoder: Any) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", [*AUDIO_NAMES, *TEXT_NAMES])
def test_adapters_start_as_nothing_and_merge_without_a_trace(kind: str) -> None:
    if kind in AUDIO_NAMES:
        encoder = audio_encoder(kind).eval()
        output: Any = lambda: audio_output(encoder, kind)  # noqa: E731
    else:
        encoder = text_encoder(kind, dropout=0.0).eval()
        tokens, mask = tokens_of(encoder, CAPTIONS)
        output = lambda: encoder.encode(tokens, mask).pooled  # noqa: E731
    names, before = {name for name, _ in encoder.named_parameters()}, output().detach()
    adapt(encoder, Adapters(rank=2, alpha=4.0))
    torch.testing.assert_close(output(), before)
    assert trained(encoder) and all("lora_" in name for name in trained(encoder))
    output().square().sum().backward()
    without = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, without
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    moved = output().detach()
    assert not torch.allclose(moved, before, atol=1e-3)
    merge(encoder)
    assert {name for name, _ in encoder.named_parameters()} == names
    torch.testing.assert_close(output(), moved, atol=1e-4, rtol=1e-4)


def test_targets_choose_layers() -> None:
    encoder = text_encoder("roberta")
    adapt(encoder, Adapters(targets=("*query", "*value")))
    assert all(".query." in name or ".value." in name for name in trained(encoder))
    assert len(trained(encoder)) == 2 * 2 * 2  # blocks, layers, A and B
    with pytest.raises(InputError, match=r"attention\.self\.query"):
        adapt(text_encoder("roberta"), Adapters(targets=("q_proj",)))
    with pytest.raises(InputError, match="rank"):
        Adapters(rank=0)


def test_adapters_and_head_are_trained_saved_gone_on_from_and_exported(tmp_path: Path) -> None:
    write_sounds(tmp_path / "build")
    overrides = ["lora.audio={rank: 2}", "lora.text={rank: 3, dropout: 0.1}", "optimizer.lr=0.01"]
    manifest = Manifest.open(str(tmp_path / "build"))
    with ranks() as group:
        fit(small_recipe([*overrides, "optimizer.steps=4", "checkpoint.every=1"]), manifest, tmp_path / "run", group)
        first, last = (checkpoint.load(folder) for folder in checkpoint.steps(tmp_path / "run/checkpoints")[-2:])
        one, other = ({name: value.clone() for name, value in found.model().items()} for found in (first, last))
        moved = {name for name in other if not torch.equal(one[name], other[name])}
        assert moved and all("lora_" in name or name.startswith("head.") for name in moved)
        assert {name.split(".")[0] for name in moved} == {"audio", "text", "head"}
        (last.folder / checkpoint.MODEL).write_bytes(b"broken")
        again = fit(
            small_recipe([*overrides, "optimizer.steps=4", "checkpoint.every=1"]), manifest, tmp_path / "run", group
        )
        assert again["resumed_from"] == 3
    for name, value in checkpoint.load(checkpoint.find(tmp_path / "run")).model().items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5)
    exported = hub.load(tmp_path / "run/export")
    assert exported.recipe.lora.audio is None
    assert not any("lora" in name for name in exported.model.state_dict())
    kept = hub.open_checkpoint(checkpoint.load(checkpoint.find(tmp_path / "run")))
    texts = ["a low hum is heard", "ticking"]
    torch.testing.assert_close(exported.encode_texts(texts), kept.encode_texts(texts), atol=1e-5, rtol=1e-4)
    wave = torch.randn(40000) / 10
    torch.testing.assert_close(exported.encode_wave(wave), kept.encode_wave(wave), atol=1e-5, rtol=1e-4)
