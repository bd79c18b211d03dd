"""The recipes that come with Earshot: each is read, trains, evaluates and searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_runs import small_recipe, write_sounds
from training import cli
from training.config import resolved
from training.config.extending import RECIPES
from training.config.loading import load_recipe, parse_recipe
from training.models.encoders.audio.passt import Settings, build
from training.tasks.retrieval import assemble

PUBLISHED = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "demo")
RETRIEVAL = ("retrieval", "moments")  # tasks whose models find sounds
SMALL_TEXT = ["source=random", "width=16", "depth=1", "heads=2", "vocabulary=300"]
SMALL_AUDIO = {
    "passt": ["variant=custom", "source=random", "width=16", "depth=10", "heads=2", "segment_s=1.0", "max_s=3.0"],
    "clap": ["source=random", "width=64", "depth=1", "heads=2", "max_s=3.0"],
    "whisper": ["source=random", "width=16", "depth=1", "heads=2", "segment_s=1.0", "max_s=3.0"],
    "multimodal": ["source=random", "width=16", "depth=1", "heads=2", "segment_s=1.0", "max_s=3.0"],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_how_it_is_started(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    loaded = load_recipe(name)
    assert f" fit {name} {'--run RUN' if loaded.data.texts else '--shards OUT --run RUN'}" in text
    assert parse_recipe(resolved.to_tree(loaded)) == loaded


def test_published_settings() -> None:
    token, sentence = load_recipe("token_attention"), load_recipe("sentence_attention")
    assert (token.data.batch_size, sentence.data.batch_size) == (96, 128)
    assert (token.head.dim, token.head.heads, token.loss.tau) == (1024, 8, 0.05)
    for name in (
        "dual_encoder",
        "sentence_attention",
        "token_attention",
    ):  # of TACOS the paper reads weak captions alone
        (tacos,) = (item for item in load_recipe(name).data.train if item.split.startswith("tacos"))
        assert tacos.captions == ("machine",)
    partial = load_recipe("partial_finetuning")
    assert partial.optimizer.freeze_below == {"audio": 8}
    assert (partial.optimizer.name, partial.optimizer.weight_decay, partial.audio.hop_s) == ("adamw", 1e-4, 5.0)
    assert (partial.head.audio_pooling, partial.head.text_pooling) == ("attention", "mean")
    assert partial.data.masking.time_masks and partial.data.masking.freq_masks


def kept_for_backward(freeze_below: int) -> int:
    """Numbers that autograd keeps of a PaSST of 12 blocks."""
    torch.manual_seed(0)
    encoder: Any = build(
        Settings(variant="custom", source="random", segment_s=1.0, width=16, depth=12, heads=2, patchout_time=2)
    )
    encoder.freeze_below(freeze_below)
    sizes = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pooled, *_ = encoder.train()(torch.randn(2, 128, 100), torch.tensor([100, 100]), torch.arange(2))
    pooled.sum().backward()
    trained = [name for name, parameter in encoder.named_parameters() if parameter.grad is not None]
    if freeze_below:
        assert {name.split(".")[2] for name in trained if "blocks" in name} == {"8", "9", "10", "11"}
        assert {name.split(".")[1] for name in trained} == {"blocks", "norm"}
    return sum(sizes)


def test_frozen_blocks_keep_no_activations() -> None:
    assert kept_for_backward(8) < 0.4 * kept_for_backward(0)


def test_attention_pooling_is_trained_with_the_head() -> None:
    model, _ = assemble(small_recipe(["head={name: dual, dim: 8, audio_pooling: attention}"]), ["a", "b"])
    assert any(name.startswith("head.audio_pool.score") for name, _ in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLISHED if load_recipe(name).task.name in RETRIEVAL])
def test_a_recipe_trains_evaluates_and_searches(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On small random encoders, all else as the recipe says."""
    shards = str(tmp_path / "build")
    write_sounds(tmp_path / "build", times=True)
    loaded = load_recipe(name)
    small = [f"audio.{setting}" for setting in SMALL_AUDIO[loaded.audio.encoder]]
    small += [f"text.{setting}" for setting in SMALL_TEXT]
    small += ["head.dim=16"] if loaded.head.dim else []
    small += ["data.train=[{split: clotho/development}]", "data.batch_size=6", "data.workers=0"]
    small += ["optimizer.steps=3", "validation={split: clotho/evaluation, first: 4}", "log.tensorboard=false"]
    if loaded.audio.encoder == "passt":
        small += ["audio.patchout_time=1", "audio.patchout_freq=1"]
        small += ["audio.hop_s=0.5"] if loaded.audio.hop_s else []
    words = [word for setting in small for word in ("--set", setting)]

    def command(*words: str) -> dict[str, Any]:
        assert cli.main([*words, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    done = command("fit", name, "--shards", shards, "--run", str(tmp_path / "run"), *words)
    assert done["steps"] == 3 and 0 < done["loss"] < 20
    export = str(tmp_path / "run/export")
    split = ("--shards", shards, "--split", "clotho/evaluation")
    exact, rough = (command("evaluate", export, *split, "--first", n) for n in ("0", "4"))
    assert exact["clips"] == 9
    measured = done["validation"]["text_to_audio/mAP@10"]
    assert rough["text_to_audio"]["mAP@10"] == pytest.approx(measured, abs=0.02)  # training reads in bfloat16
    index = str(tmp_path / "index")
    command("index", export, "--shards", shards, "--out", index)
    every, first = (command("search", index, "a hiss", "--top", "99", "--first", n)["results"] for n in ("999", "8"))
    scores = {hit["entry"]: hit["score"] for hit in every}
    assert [hit["score"] for hit in every] == sorted(scores.values(), reverse=True)
    assert first and all(hit["score"] == pytest.approx(scores[hit["entry"]], abs=1e-5) for hit in first)
