"""``python -m training order``: a batch without training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.small_runs import TREE
from training import cli


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(TREE))
    return file


def test_a_batch_is_shown_with_captions_crops_and_masks(
    build: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["order", str(recipe), "--shards", str(build), "--step", "1"]
    assert cli.main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["step"], shown["steps_per_epoch"], len(shown["samples"])) == (1, 4, 6)
    assert cli.main([*command, "--world", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"epoch 0, step 1 of 4: 6 samples, hash {shown['hash']}")
    for line, sample in zip(lines[1:], shown["samples"], strict=True):
        assert sample["key"] in line and sample["caption"] in line and sample["masks"] in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "0"], "--world must be at least 1"),
        (["--epoch", "-1"], "--epoch and --workers 0 or more"),
        (["--step", "4"], "the epoch has no such step"),
        (
            ["--set", "data.train=[{split: mine/train}]"],
            "to use them: --set 'data.train=[{split: clotho/development}]'",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(
    build: Path, recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["order", str(recipe), "--shards", str(build), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_batch_of_sentence_pairs_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.csv").write_text("sent0,sent1\n" + "".join(f"a dog {n},hound {n}\n" for n in range(6)))
    data = {"texts": {"dogs": str(tmp_path / "pairs.csv")}, "train": [{"split": "dogs"}], "batch_size": 4}
    tree = {"task": {"name": "text_pairs", "hard_negatives": False}, "data": data}
    tree |= {name: TREE[name] for name in ("text", "loss", "optimizer", "log")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    assert cli.main(["order", str(tmp_path / "recipe.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all("a dog" in line for line in lines[1:])


def test_an_empty_sentence_is_named_with_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.csv").write_text("sent0,sent1\na dog,hound\na cat,\n")
    words = ["--set", f"data.texts.nli={tmp_path / 'pairs.csv'}"]
    assert cli.main(["order", "text_pairs", *words]) == 2
    error = capsys.readouterr().err
    assert "sent1 is empty" in error and "pairs.csv" in error and "3" in error
    assert cli.main(["order", "text_pairs", "--shards", str(tmp_path), *words]) == 2
    assert "no shards" in capsys.readouterr().err
