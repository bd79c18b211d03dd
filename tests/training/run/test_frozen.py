"""Training on stored vectors of frozen encoders gives the same losses as encoding in every step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import lines, run_ranks, small_recipe
from training.data.stored import finished_parts
from training.engine.distributed import Group
from training.run.loop import fit

FROZEN = (
    "audio={encoder: whisper, source: random, segment_s: 1.0, width: 16, depth: 1, heads: 2, max_s: 3.0}",
    "optimizer.freeze=['audio.*', 'text.*']",
    "data.masking={time_masks: 0, freq_masks: 0}",
    "validation={split: clotho/evaluation, every: 4}",
    "optimizer.epochs=2",
    "data.crop_s=3.0",
)
STORED = (*FROZEN, "data.stored=[audio, text]")
TOKENS = "head={name: token-attention, dim: 16, heads: 2, audio: patches}"


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run)]


@pytest.fixture(scope="module")
def plain(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    fit(small_recipe(FROZEN), Manifest.open(build), run, group)
    return run


def test_losses_and_figures_are_those_of_encoding_in_every_step(
    build: Path, group: Group, plain: Path, tmp_path: Path
) -> None:
    result = fit(small_recipe(STORED), Manifest.open(build), tmp_path, group)
    assert losses(tmp_path) == pytest.approx(losses(plain), rel=1e-5)
    before = [line["validation"] for line in lines(plain) if "validation" in line]
    after = [line["validation"] for line in lines(tmp_path) if "validation" in line]
    assert len(after) > 1
    assert after == [pytest.approx(figures, abs=1e-6) for figures in before]
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "stored").iterdir()) == ["audio", "text"]
    exported = json.loads((Path(result["export"]) / "config.json").read_text())
    assert exported["recipe"]["data"]["stored"] == ["audio", "text"]


@pytest.mark.parametrize("which", ["audio", "text"])
def test_one_of_the_encoders_can_be_stored_and_the_head_may_use_tokens(
    which: str, build: Path, group: Group, tmp_path: Path
) -> None:
    same = [*FROZEN, TOKENS, "optimizer.epochs=1", "validation.split=null", "optimizer.warmup_epochs=0"]
    for name, more in (("plain", []), ("stored", [f"data.stored=[{which}]", "engine.chunk=4"])):
        fit(small_recipe([*same, *more]), Manifest.open(build), tmp_path / name, group)
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_stored_vectors_are_computed_once_and_again_where_they_are_damaged(
    build: Path, group: Group, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(run: str) -> dict[str, float]:
        overrides = [*STORED, f"data.stored_folder={tmp_path / 'shared'}"]
        fit(small_recipe(overrides), Manifest.open(build), tmp_path / run, group)
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*.safetensors")}

    first = start("first")
    last = re.findall(r"clips encoded (\d+)/(\d+)", capsys.readouterr().err)[-1]
    assert last == (str(Manifest.open(build).table.num_rows),) * 2  # as many as there are, not as parts could hold
    assert start("second") == first
    (audio,) = (tmp_path / "shared").glob("audio-*")
    (part,) = finished_parts(audio).values()
    data = bytearray(part.read_bytes())
    data[-5] ^= 1
    part.write_bytes(data)
    third = start("third")
    assert third.keys() == first.keys()
    assert third[part.name] > first[part.name]
    assert losses(tmp_path / "third") == losses(tmp_path / "first")


@pytest.mark.slow
def test_two_ranks_share_the_work(build: Path, plain: Path, tmp_path: Path) -> None:
    run_ranks(2, build, {"three": [*STORED, "engine.zero=3"], "one": STORED}, tmp_path)
    for run in ("three", "one"):
        assert losses(tmp_path / run) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["optimizer.freeze=['text.*']"], "the audio encoder is trained"),
        (["data.masking={time_masks: 1, time_width: 10}"], "masked at random"),
        (["data.augment={gain_db: 3}"], "sounds are changed at random"),
        (["data.crop_s=1.0"], "drawn at random"),
        (["data.max_failures=2"], "damaged samples have none"),
        (["text.dropout=0.1"], "the text encoder drops parts at random"),
        (["audio.dropout=0.1"], "the audio encoder drops parts at random"),
        (
            ["audio={encoder: passt, variant: custom, source: random, width: 16, depth: 1, heads: 2}"],
            "draws its filters",
        ),
    ],
)
def test_what_changes_from_epoch_to_epoch_is_refused(
    overrides: list[str], what: str, build: Path, group: Group, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        fit(small_recipe([*STORED, *overrides]), Manifest.open(build), tmp_path, group)
    assert caught.value.remedy


def test_a_teacher_with_the_same_frozen_encoders_reads_the_stored_vectors(
    build: Path, group: Group, tmp_path: Path
) -> None:
    short = ["optimizer.epochs=1", "optimizer.warmup_epochs=0", "validation.split=null"]
    attention = "head={name: token-attention, dim: 16, heads: 2, audio: segments}"
    for name, more in (("teacher", [attention]), ("other", ["audio.width=8"])):
        fit(small_recipe([*FROZEN, *short, *more]), Manifest.open(build), tmp_path / name, group)
    taught = [*short, f"distillation.teachers=[{tmp_path / 'teacher/export'}]"]
    for name, recipe in (("plain", FROZEN), ("stored", STORED)):
        fit(small_recipe([*recipe, *taught]), Manifest.open(build), tmp_path / name, group)
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    with pytest.raises(InputError, match="another audio encoder"):
        recipe = small_recipe([*STORED, *short, f"distillation.teachers=[{tmp_path / 'other/export'}]"])
        fit(recipe, Manifest.open(build), tmp_path / "refused", group)
