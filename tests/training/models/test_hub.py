"""Exports: what is written is read back, and what was damaged, forged or is not trusted is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe
from training.config import resolved
from training.engine import checkpoint
from training.engine.sealed import sealed, unsealed
from training.models import hub
from training.models.build import TOKENIZER
from training.models.untrusted import describe_files
from training.tasks.retrieval import RetrievalTask, assemble

CAPTIONS = ["a low hum", "a whistle", "some hiss"]
ENCODER = """
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.models.encoders import AudioEncoder


@dataclass(frozen=True)
class Settings:
    encoder: str


class Mine(AudioEncoder):
    front_end, segment_s, hop_s, max_s, dim = "passt", 1.0, 1.0, 1.0, 4

    def __init__(self, settings):
        super().__init__()
        self.layer = nn.Linear(128, 4)

    def blocks(self):
        return []

    def forward(self, features, frames, seeds):
        tokens = self.layer(features.transpose(1, 2))
        return tokens.mean(1), tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)


(Path(__file__).parent / "it-ran").touch()
"""


def write_run(run: Path, overrides: list[str]) -> checkpoint.Checkpoint:
    """A run's folder with one checkpoint of an untrained model."""
    recipe = small_recipe(overrides)
    model, loss = assemble(recipe, CAPTIONS)
    run.mkdir(exist_ok=True)
    (run / "recipe.yaml").write_text(resolved.dump(recipe))
    model.text.tokenizer.save_pretrained(run / TOKENIZER)
    values = RetrievalTask(model, loss).tensors()
    folder = checkpoint.save(run / "checkpoints", 3, values, {}, {"plan": "p", "validation": {"a/R@1": 0.5}})
    return checkpoint.load(folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return hub.save(write_run(folder, []), folder / "export")


@pytest.fixture
def export(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "export"))


def forge(export: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change config.json as somebody would who knows how checksums are made, the list of files included."""
    config = unsealed((export / "config.json").read_text())
    change(config)
    if isinstance(config.get("files"), dict):
        config["files"] = describe_files(export, frozenset(("config.json", "README.md")))
    (export / "config.json").write_text(sealed(config))


def test_an_export_computes_what_the_checkpoint_computes(original: Path) -> None:
    run = original.parent
    exported, kept = hub.load(original), hub.open_checkpoint(checkpoint.load(checkpoint.find(run)))
    texts = ["A LOW hum!", "some hiss"]
    assert torch.equal(exported.encode_texts(texts)[0], kept.encode_texts(texts)[0])
    wave = np.sin(np.arange(48000) / 10)
    assert torch.equal(exported.encode_wave(wave)[0], kept.encode_wave(wave)[0])
    assert torch.equal(hub.open_model(run).encode_texts(texts)[0], kept.encode_texts(texts)[0])


def test_the_card_and_files_that_are_not_loaded_may_change(export: Path) -> None:
    (export / "README.md").write_text("My own words.")
    (export / "notes.txt").write_text("more")
    hub.load(export)
    (export / "README.md").unlink()
    hub.load(export)


def test_a_flipped_bit_anywhere_is_refused(export: Path) -> None:
    draw = np.random.default_rng(0)
    files = [path for path in sorted(export.rglob("*")) if path.is_file() and path.name != "README.md"]
    assert len(files) >= 4
    for file in files:
        whole = file.read_bytes()
        for place in draw.integers(0, len(whole), 4):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(draw.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(InputError):
                hub.load(export)
        file.write_bytes(whole)
    hub.load(export)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/tokenizer.json"])
def test_a_missing_file_is_named(name: str, export: Path) -> None:
    (export / name).unlink()
    with pytest.raises(InputError, match="missing") as refusal:
        hub.load(export)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["tokenizer/special.json", "audio/config.json", "audio_encoder.py", "text/a/b.py"])
def test_an_additional_file_that_would_be_loaded_is_refused(name: str, export: Path) -> None:
    (export / name).parent.mkdir(exist_ok=True, parents=True)
    (export / name).write_text("{}")
    with pytest.raises(InputError, match="not in the list"):
        hub.load(export)


def test_an_export_of_an_earlier_version_says_how_to_get_a_new_one(export: Path) -> None:
    config = unsealed((export / "config.json").read_text())
    (export / "config.json").write_text(json.dumps({**config, "format": 1}))
    with pytest.raises(InputError, match="earlier version") as refusal:
        hub.load(export)
    assert "run the training command again" in str(refusal.value)
    with pytest.raises(InputError, match="no readable config"):
        hub.load(export.parent)


def test_a_checkpoint_notices_that_the_recipe_beside_it_was_changed(tmp_path: Path) -> None:
    found = write_run(tmp_path, [])
    state = found.state | {"recipe_digest": resolved.digest(small_recipe())}
    hub.open_checkpoint(checkpoint.Checkpoint(found.folder, state))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(resolved.dump(small_recipe(["engine.zero=3", "log.health=7"])))  # may change in a run
    hub.open_checkpoint(checkpoint.Checkpoint(found.folder, state))
    recipe.write_text(resolved.dump(small_recipe(["loss.tau=0.5"])))
    hub.open_checkpoint(found)  # of a former version, without a digest
    with pytest.raises(InputError, match="recipe was changed after this checkpoint") as refusal:
        hub.open_checkpoint(checkpoint.Checkpoint(found.folder, state))
    assert refusal.value.file == recipe


def test_code_runs_only_if_it_is_trusted_and_inside_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "audio_encoder.py").write_text(ENCODER)
    found = write_run(run, [f"audio={{encoder: {run / 'audio_encoder.py'}:Mine}}"])
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace(str(run) + "/", ""))
    (run / "it-ran").unlink()
    export = tmp_path / "export"
    with pytest.raises(InputError, match="--trust-code"):
        hub.save(found, export)
    hub.save(found, export, trust_code=True)
    for refused in (lambda: hub.load(export), lambda: hub.open_model(run), lambda: hub.open_model(export)):
        with pytest.raises(InputError, match="SHA-256"):
            refused()
    assert not (export / "it-ran").exists()
    capsys.readouterr()
    hub.load(export, trust_code=True)
    digest = unsealed((export / "config.json").read_text())["files"]["audio_encoder.py"]["sha256"]
    assert digest in capsys.readouterr().err

    (tmp_path / "elsewhere.py").write_text(ENCODER)
    (tmp_path / "it-ran").unlink(missing_ok=True)
    for name in (tmp_path / "elsewhere.py", "../elsewhere.py"):
        forge(export, lambda config, name=name: config["recipe"]["audio"].update(encoder=f"{name}:Mine"))  # type: ignore[misc]
        with pytest.raises(InputError, match="not inside"):
            hub.load(export, trust_code=True)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("audio", "width", 2**20),
        ("audio", "depth", 10**9),
        ("audio", "segment_s", 1e9),
        ("text", "width", 2**24),
        ("head", "dim", 2**40),
        ("head", "dim", 8),
        ("text", "depth", 3),
        ("text", "heads", 3),
        ("audio", "stride", 10**6),
        ("data", "max_tokens", 10**9),
    ],
)
def test_absurd_sizes_are_refused_without_the_memory(section: str, key: str, value: Any, export: Path) -> None:
    forge(export, lambda config: config["recipe"][section].update({key: value}))
    with pytest.raises(InputError):
        hub.load(export)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["head.text_projection.weight"].fill_(float("nan")), "not finite"),
        (lambda w: w.pop("head.text_projection.bias"), "lacks a parameter"),
        (lambda w: w.update(more=torch.zeros(2)), "that the model lacks"),
        (lambda w: w.update({"head.text_projection.bias": torch.zeros(3)}), "of the model"),
        (lambda w: w.update({"head.text_projection.bias": torch.zeros(16, dtype=torch.int64)}), "of the model"),
    ],
)
def test_other_weights_are_refused(change: Callable[[dict[str, Any]], Any], message: str, export: Path) -> None:
    weights = load_file(export / "model.safetensors")
    change(weights)
    save_file(weights, export / "model.safetensors")
    forge(export, lambda config: None)
    with pytest.raises(InputError, match=message):
        hub.load(export)


def paths(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(*above, key), *paths(value, (*above, key))]]


ODD = st.sampled_from(
    [None, True, -1, 0, 1, 7, 10**18, -(10**18), 0.5, float("inf"), float("nan"), "", "x", [], {}, [1]]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_configuration_loads_or_is_refused(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    export = tmp_path / "export"
    shutil.rmtree(export, ignore_errors=True)
    shutil.copytree(original, export)
    config = unsealed((export / "config.json").read_text())
    place = data.draw(st.sampled_from([place for place in paths(config) if place[0] != "files"]))
    value = data.draw(ODD)

    def change(tree: Any) -> None:
        for key in place[:-1]:
            tree = tree[key]
        tree[place[-1]] = value

    forge(export, change)
    with contextlib.suppress(InputError):
        hub.load(export).encode_wave(np.zeros(1000))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_forged_files_load_or_are_refused(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    export = tmp_path / "export"
    shutil.rmtree(export, ignore_errors=True)
    shutil.copytree(original, export)
    name = data.draw(
        st.sampled_from(["model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"])
    )
    whole = (export / name).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little") if name == "model.safetensors" else len(whole)
    begin = data.draw(st.integers(0, header - 1))
    end = data.draw(st.integers(begin, min(begin + 12, len(whole))))
    (export / name).write_bytes(whole[:begin] + data.draw(st.binary(max_size=12)) + whole[end:])
    forge(export, lambda config: None)
    with contextlib.suppress(InputError):
        hub.load(export)
