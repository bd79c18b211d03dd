"""CoLLAT: the three terms by their definition, a text encoder that stays as it is, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import lines, small_recipe
from training import cli
from training.data import Loader, Order
from training.data.batch import Batch
from training.data.sound.features import AudioInput
from training.engine.distributed import Group
from training.models.encoders.randomness import noisy
from training.models.hub import load
from training.run.loop import fit
from training.tasks.collat import NOISE, TOKENS, CollatTask, make_task

INTERACTION = "interaction: {blocks: 1, width: 16, heads: 2}"
SMALL = [f"task={{name: collat, {INTERACTION}}}", "head=null", "data.max_tokens=24"]


def task_and_batch(build: Path, *more: str) -> tuple[CollatTask, Batch]:
    recipe = small_recipe([*SMALL, *more])
    manifest = Manifest.open(build)
    task = make_task(recipe, manifest).train()
    audio, tokenizer = AudioInput.of(task.model.audio), task.model.text.tokenizer
    loader = Loader(manifest, Order(manifest.table, recipe.data, 0), recipe.data, audio, tokenizer)
    return task, next(iter(loader.epoch(0)))


def test_each_term_is_that_of_the_paper(build: Path) -> None:
    task, batch = task_and_batch(build, "task.unit=sum")
    with torch.no_grad():
        outputs = task(batch)
        written = task.model.predict(batch.features, batch.frames, batch.seeds)
        table = task.model.text.net.get_input_embeddings().weight
        total = 0.0
        for row, (tokens, mask) in enumerate(zip(batch.tokens, batch.token_mask, strict=True)):
            free = list(range(written.shape[1]))
            for token in tokens[mask][1:-1].flip(0):  # begin and end tokens are given
                gaps = [float((written[row, place] - table[token]).abs().sum()) for place in free]
                total += min(gaps)
                free.pop(gaps.index(min(gaps)))
        assert float(outputs.local[TOKENS].total) == pytest.approx(total, rel=1e-5)
        assert int(outputs.local[TOKENS].count) == len(batch)
        louder = noisy(batch.features, batch.frames, batch.seeds, 0.1)
        moved = (task.model.predict(louder, batch.frames, batch.seeds) - written).abs().sum()
        assert float(outputs.local[NOISE].total) == pytest.approx(float(moved), rel=1e-5)
    assert task.weights() == {TOKENS: 1.0, NOISE: 0.01}
    assert [term.weight for term in task.terms().values()] == [0.1]


def test_a_term_with_weight_0_is_not_computed(build: Path) -> None:
    heard = []
    task, batch = task_and_batch(build, "task.noise_weight=0")
    task.model.audio.register_forward_hook(lambda *_: heard.append(1))
    assert set(task(batch).local) == {TOKENS} and len(heard) == 1
    task, batch = task_and_batch(build, "task.token_weight=0")
    task.model.audio.register_forward_hook(lambda *_: heard.append(1))
    assert set(task(batch).local) == {NOISE} and len(heard) == 3
    task, _ = task_and_batch(build, "task.global_weight=0")
    assert task.terms() == {}


def test_padding_gives_every_prediction_a_token(build: Path) -> None:
    task, batch = task_and_batch(build, "task.padding=true", "task.unit=token")
    assert int(task(batch).local[TOKENS].count) == len(batch) * task.model.interaction.count
    task, batch = task_and_batch(build, "task.unit=token")
    assert int(task(batch).local[TOKENS].count) == int(batch.token_mask.sum()) - 2 * len(batch)


@pytest.fixture(scope="module")
def run(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, Any]]:
    """A finished run, with the text encoder and vectors of texts from before it."""
    folder = tmp_path_factory.mktemp("collat")
    recipe = small_recipe([*SMALL, "optimizer.name=adamw", "optimizer.weight_decay=0.1", "checkpoint.every=4"])
    fresh = make_task(recipe, Manifest.open(build)).eval()
    state = {name: value.clone() for name, value in fresh.model.text.state_dict().items()}
    fit(recipe, Manifest.open(build), folder, group)
    yield folder, fresh, state


def test_not_one_bit_of_the_text_encoder_changes(run: tuple[Path, Any, Any]) -> None:
    folder, fresh, state = run
    retriever = load(folder / "export")
    assert all(value.equal(state[name]) for name, value in retriever.model.text.state_dict().items())
    words = retriever.tokenizer(["a low hum", "hiss"], padding=True, return_tensors="pt")
    tokens, mask = words["input_ids"], words["attention_mask"].bool()
    with torch.no_grad():
        assert retriever.model.text_side(tokens, mask)[0].equal(fresh.model.text_side(tokens, mask)[0])
    losses = [line["loss"] for line in lines(folder)]
    assert losses[-1] < losses[0]
    assert set(lines(folder)[0]["loss_parts"]) == {"ntxent", TOKENS, NOISE}


def test_the_text_encoder_is_stored_once_and_in_no_checkpoint(run: tuple[Path, Any, Any]) -> None:
    folder, fresh, _ = run
    for file in folder.glob("checkpoints/*/*.safetensors"):
        with safe_open(file, framework="pt") as found:
            assert not [name for name in found.keys() if "text." in name]  # noqa: SIM118
    with safe_open(folder / "frozen.safetensors", framework="pt") as found:
        assert set(found.keys()) == {f"text.{name}" for name, _ in fresh.model.text.named_parameters()}


@pytest.mark.slow
def test_sounds_are_found_by_a_vector_that_the_encoder_gave_before_training(
    run: tuple[Path, Any, Any], build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by vectors of texts that another system computed with the same encoder long ago, and stored."""
    folder, fresh, _ = run
    index = tmp_path / "index"
    assert cli.main(["index", str(folder), "--shards", str(build), "--out", str(index), "--window", "1"]) == 0
    words = fresh.model.text.tokenizer(["a low hum"], return_tensors="pt")
    with torch.no_grad():
        pooled = fresh.model.text.encode(words["input_ids"], words["attention_mask"].bool()).pooled
    np.save(tmp_path / "old.npy", 3 * pooled[0].numpy())
    capsys.readouterr()
    found = []
    for query in (["--vector", str(tmp_path / "old.npy")], ["A low hum!"]):
        assert cli.main(["search", str(index), *query, "--top", "5", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1])["results"])
    by_vector, by_text = ([hit["score"] for hit in hits] for hits in found)
    assert len(by_vector) == 5 and by_vector == pytest.approx(by_text, abs=1e-4)  # sounds of one kind are near ties
    np.save(tmp_path / "short.npy", np.ones(3))
    assert cli.main(["search", str(index), "--vector", str(tmp_path / "short.npy")]) == 2
    assert "the file must hold one vector of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lora.text={rank: 2}", "would change the locked text encoder"),
        ("engine={dtype: bf16, frozen: bf16}", "would change the locked text encoder"),
        ("alignment.weight=1.0", "has no such term"),
        ("task.tokens=5", "set it to 22 or more"),
        ("task.tokens=900", "more than the text encoder reads"),
        ("task.layer=9", "no layer of the text encoder"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(small_recipe([*SMALL, change]), Manifest.open(build))


def test_weights_must_train_something() -> None:
    with pytest.raises(InputError, match="must be positive"):
        small_recipe([*SMALL, "task.token_weight=0", "task.global_weight=0"])
