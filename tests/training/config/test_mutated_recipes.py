"""Any recipe is read, or refused with an InputError: never a traceback of something else."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import TREE
from training.config import resolved
from training.config.extending import RECIPES
from training.config.loading import load_recipe, parse_recipe
from training.engine.distributed import Group

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
WORDS = ["", "random", "mean", "attention", "dual", "token-attention", "sgd", "adamw", "device", "neighbours", "length"]
SMALL = st.sampled_from([0, 1, 2, 3, 5, 17, -1, 0.0, 1e-9, 0.5, 1.0, 3.7, True, False, None, *WORDS])
LARGE = st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([2**63, -(2**63), 1e308, [], {}, [{}]])


def paths(tree: dict[str, Any]) -> list[tuple[str, ...]]:
    """The keys down to each value; a key may have a dot in it, such as a pattern of ``optimizer.rates``."""
    found: list[tuple[str, ...]] = []
    for key, value in tree.items():
        found += [(key, *rest) for rest in paths(value)] if isinstance(value, dict) and value else [(key,)]
    return found


def change(tree: dict[str, Any], path: tuple[str, ...], how: str, value: Any) -> None:
    """Set, remove or rename the key at a path."""
    for part in path[:-1]:
        tree = tree[part]
    if how == "set":
        tree[path[-1]] = value
    else:
        old = tree.pop(path[-1], None)
        if how == "rename":
            tree[path[-1] + "x"] = old


@st.composite
def mutated(draw: st.DrawFn, tree: dict[str, Any], values: st.SearchStrategy[Any]) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    for path in draw(st.lists(st.sampled_from(paths(tree)), min_size=1, max_size=3, unique=True)):
        change(tree, path, draw(st.sampled_from(["set"] * 6 + ["remove", "rename"])), draw(values))
    return tree


TREES = {name: resolved.to_tree(load_recipe(name)) for name in NAMES}


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(NAMES).flatmap(lambda name: mutated(TREES[name], SMALL | LARGE)))
def test_a_mutated_recipe_is_read_or_refused(tree: dict[str, Any]) -> None:
    try:
        recipe = parse_recipe(tree, "recipe.yaml")
    except InputError:
        return
    assert parse_recipe(resolved.to_tree(recipe)) == recipe


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(NAMES),
    at=st.floats(0, 1),
    length=st.integers(0, 20),
    inserted=st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | st.sampled_from(["&a ", "*a", "{", "[", ": "]),
)
def test_a_mutated_file_is_read_or_refused(name: str, at: float, length: int, inserted: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    position = int(at * len(text))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.yaml"
        file.write_text(text[:position] + inserted + text[position + length :], encoding="utf-8")
        try:
            load_recipe(file)
        except InputError as error:
            assert str(error.file).endswith(".yaml")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(tree=mutated(resolved.to_tree(parse_recipe(TREE)) | {"seed": 1}, SMALL))
def test_a_mutated_recipe_trains_or_is_refused(tree: dict[str, Any], build: Path, group: Group) -> None:
    from training.run.loop import fit

    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = parse_recipe(tree, "recipe.yaml")
            tree["optimizer"]["steps"] = 1
            recipe = parse_recipe(tree, "recipe.yaml")
            done = fit(recipe, Manifest.open(build), Path(folder) / "run", group)
        except InputError:
            return
        assert done["steps"] == 1
