"""Starting from another run's weights, and what frozen parameters cost on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import figures, small_recipe
from training.engine import checkpoint
from training.engine.distributed import Group
from training.models.hub import open_model
from training.run.loop import fit

SHORT = ["optimizer.steps=2", "optimizer.warmup_epochs=0", "checkpoint.every=1"]


@pytest.fixture(scope="module")
def former(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    fit(small_recipe([*SHORT, "seed=7"]), Manifest.open(build), folder, group)
    return folder


def started(build: Path, group: Group, folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights of a run after one step that hardly moves."""
    fit(
        small_recipe([*SHORT, "optimizer.lr=1e-30", "optimizer.final_lr=0", *overrides]),
        Manifest.open(build),
        folder,
        group,
    )
    return checkpoint.load(checkpoint.find(folder)).model()


def test_a_run_starts_from_another_ones_weights(build: Path, group: Group, former: Path, tmp_path: Path) -> None:
    found = started(build, group, tmp_path, f"init_from.model={former}")
    expected = dict(open_model(former).model.state_dict())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_parts_and_what_does_not_fit_are_told(
    build: Path, group: Group, former: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["init_from.parts=[audio, head]", "head.dim=8"]
    found = started(build, group, tmp_path, f"init_from.model={former}", *more)
    told = capsys.readouterr().err
    source = dict(open_model(former).model.state_dict())
    assert torch.equal(found["audio.net.norm.weight"], source["audio.net.norm.weight"])
    text = "text.net.encoder.layer.0.output.dense.weight"
    assert not torch.equal(found[text], source[text])
    assert "not found there: head.audio_projection.bias" in told and "not used:" in told


def test_adapters_of_the_new_run_are_not_missed(
    build: Path, group: Group, former: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = started(build, group, tmp_path, f"init_from.model={former}", "lora={text: {rank: 2}}")
    adapters = sum(".lora_" in name for name in found)
    told = capsys.readouterr().err
    assert adapters and f", and {adapters} of adapters, which begin anew" in told and "not found there" not in told


def test_an_impossible_start_is_refused(build: Path, group: Group, former: Path, tmp_path: Path) -> None:
    for number, (override, told) in enumerate(
        (("init_from.parts=[adio]", "no such part"), ("init_from.model=nowhere", "no"))
    ):
        with pytest.raises(InputError, match=told):
            started(build, group, tmp_path / str(number), f"init_from.model={former}", override)


def test_another_encoder_is_refused_before_its_weights_are_looked_for(
    build: Path, group: Group, former: Path, tmp_path: Path
) -> None:
    """As where the recipe linear_probe, whose encoder is published, names a model with another one."""
    overrides = ["init_from.parts=[audio]", "audio={encoder: whisper, source: nobody/has-this}"]
    with pytest.raises(InputError, match="another audio encoder") as refused:
        started(build, group, tmp_path, f"init_from.model={former}", *overrides)
    found = re.search("--set 'audio=({.*})'", str(refused.value))
    assert found is not None
    assert started(build, group, tmp_path / "run", f"init_from.model={former}", overrides[0], f"audio={found[1]}")


def test_frozen_parameters_are_saved_once_and_resumed(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(["optimizer.steps=4", "checkpoint.every=2", "optimizer.freeze=['audio.*']"])
    fit(recipe, Manifest.open(build), tmp_path / "whole", group)
    weights = load_file(checkpoint.find(tmp_path / "whole") / checkpoint.MODEL)
    frozen = load_file(tmp_path / "whole" / checkpoint.FROZEN)
    assert not any(name.startswith("audio.net.blocks") for name in weights)
    assert any(name.startswith("audio.net.blocks") for name in frozen) and not set(frozen) & set(weights)

    class Killed(Exception):
        pass

    def kill(state: dict) -> None:
        if state["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(recipe, Manifest.open(build), tmp_path / "parts", group, kill)
    fit(recipe, Manifest.open(build), tmp_path / "parts", group)
    assert figures(tmp_path / "parts") == figures(tmp_path / "whole")


def test_damaged_frozen_parameters_are_refused(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(["optimizer.steps=2", "optimizer.freeze=['text.*']"])
    fit(recipe, Manifest.open(build), tmp_path, group)
    file = tmp_path / checkpoint.FROZEN
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="frozen parameters are missing or damaged"):
        checkpoint.load(sorted((tmp_path / "checkpoints").glob("step-*"))[-1])


def test_frozen_weights_in_half_precision_train(build: Path, group: Group, tmp_path: Path) -> None:
    more = ["optimizer.freeze=['text.*']", "engine.dtype=bf16", "engine.frozen=bf16", "optimizer.steps=4"]
    fit(small_recipe(more), Manifest.open(build), tmp_path, group)
    assert all(value.dtype == torch.bfloat16 for value in load_file(tmp_path / checkpoint.FROZEN).values())
    with pytest.raises(InputError, match="frozen weights in bf16 need dtype"):
        small_recipe(["engine.frozen=bf16"])
