"""Recipes that extend another recipe: what they take over, and which file and row an error names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sharding.common.errors import InputError
from tests.training.small_runs import TREE
from training.config import resolved
from training.config.loading import load_recipe, parse_recipe


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path, "base", yaml.safe_dump(TREE, sort_keys=False))


def test_a_recipe_takes_over_what_it_does_not_set(base: Path, tmp_path: Path) -> None:
    write(tmp_path, "middle", "extends: base.yaml\noptimizer: {lr: 2e-4}\nseed: 3\n")
    top = write(tmp_path, "top", "extends: middle.yaml\ndata: {masking: {time_width: 5}}\nseed: 4\n")
    wanted = yaml.safe_load(yaml.safe_dump(TREE))
    wanted["optimizer"]["lr"] = 2e-4
    wanted["data"]["masking"]["time_width"] = 5
    wanted["seed"] = 4
    assert load_recipe(top) == parse_recipe(wanted)


def test_lists_are_replaced_and_not_joined(base: Path, tmp_path: Path) -> None:
    top = write(tmp_path, "top", "extends: base.yaml\ndata: {train: [{split: wavcaps}]}\n")
    recipe = load_recipe(top)
    assert [item.split for item in recipe.data.train] == ["wavcaps"]
    assert recipe.data.batch_size == TREE["data"]["batch_size"]


def test_naming_a_component_replaces_its_section(base: Path, tmp_path: Path) -> None:
    top = write(tmp_path, "top", "extends: base.yaml\nhead: {name: text-aware-pooling}\ntext: {dropout: 0.5}\n")
    recipe = load_recipe(top)
    assert recipe.head.name == "text-aware-pooling" and recipe.head.dim != TREE["head"]["dim"]
    assert (recipe.text.dropout, recipe.text.width) == (0.5, TREE["text"]["width"])


def test_a_recipe_that_comes_with_earshot_can_be_extended(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "mine", "extends: demo\nseed: 9\n"))
    tree = resolved.to_tree(load_recipe("demo"))
    assert recipe == parse_recipe(tree | {"seed": 9})


def test_an_error_names_the_file_and_row_that_set_the_key(base: Path, tmp_path: Path) -> None:
    base.write_text(base.read_text().replace("  lr: 0.001", "  lr: fast"))
    top = write(tmp_path, "top", "extends: base.yaml\n\noptimizer:\n  epochs: 3\n")
    row = base.read_text().splitlines().index("  lr: fast") + 1
    with pytest.raises(InputError, match=rf"base\.yaml, row {row}: optimizer\.lr must be a number"):
        load_recipe(top)
    top.write_text("extends: base.yaml\n\noptimizer:\n  lr: 0.1\n  epoch: 3\n")
    with pytest.raises(InputError, match=r"top\.yaml, row 5: unknown key optimizer\.epoch"):
        load_recipe(top)
    with pytest.raises(InputError, match=r"^--set optimizer\.lr=slow: optimizer\.lr must be a number"):
        load_recipe(write(tmp_path, "other", "extends: demo\n"), ["optimizer.lr=slow"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: top.yaml\n", "the recipe extends itself"),
        ("extends: twin.yaml\n", "the recipe extends itself"),
        ("seed: 1\nextends: dem\n", r"row 2: extends names no recipe.*\n.*did you mean 'demo'"),
        ("extends: [demo]\n", "must name one recipe"),
        ("extends: list.yaml\n", "must be a mapping"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path: Path, text: str, message: str) -> None:
    top = write(tmp_path, "top", text)
    write(tmp_path, "twin", "extends: top.yaml\n")
    write(tmp_path, "list", "- a list\n")
    with pytest.raises(InputError, match=message):
        load_recipe(top)


def test_an_encoder_is_looked_for_in_the_folder_of_the_recipe_that_names_it(base: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    base.write_text(base.read_text().replace("encoder: passt", "encoder: absent.py:Mine"))
    top = write(tmp_path / "below", "top", "extends: ../base.yaml\n")
    (tmp_path / "absent.py").write_text("")
    with pytest.raises(InputError, match=r"absent\.py: the file has no AudioEncoder"):
        load_recipe(top)
