"""Recipes from files: sections, components, and errors that name file, row and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sharding.common.errors import InputError
from tests.training.small_runs import TREE, small_recipe
from training.config.loading import load_recipe, parse_recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def refusal(tree: dict, **sections: object) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(json.loads(json.dumps(tree)) | sections, "mine.yaml")
    return str(caught.value)


def test_an_unknown_key_names_file_row_path_and_nearest_key(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(TREE, sort_keys=False).replace("  lr: 0.001", "  lrr: 0.001"))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    row = path.read_text().splitlines().index("  lrr: 0.001") + 1
    message = str(caught.value)
    assert f"mine.yaml, row {row}" in message
    assert "optimizer.lrr" in message
    assert "did you mean 'lr'" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "did you mean 'optimizer'"),
        ("head.name=duall", "did you mean 'dual'"),
        ("head.name=3", "unknown head name (found 3)"),
        ("audio.encoder=pasta", "did you mean 'passt'"),
        ("text={source: random}", "the key 'encoder' is missing"),
        ("loss=ntxent", "loss must be a mapping"),
        ("audio.encoder=absent.py:Mine", "no such file of an encoder"),
    ],
)
def test_sections_and_components_that_do_not_exist_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        small_recipe([override])
    assert message in str(caught.value)


def test_a_section_without_defaults_cannot_be_left_out() -> None:
    without = {name: section for name, section in TREE.items() if name != "optimizer"}
    assert "the section 'optimizer' is missing" in refusal(without)
    assert "optimizer.clip is missing" in refusal(TREE, optimizer={"lr": 1e-3})


def test_an_unknown_recipe_names_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean 'dual_encoder'"):
        load_recipe("dual_encodr")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    # YAML 1.1 reads 2e-5 as text
    path = write(tmp_path, yaml.safe_dump(TREE).replace("lr: 0.001", "lr: 2e-5"))
    assert load_recipe(path).optimizer.lr == 2e-5
    assert load_recipe(path, ["optimizer.lr=3e-4"]).optimizer.lr == 3e-4
