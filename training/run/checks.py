"""Checks of a recipe against a build, before anything else begins."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.sources.protected import is_protected, parse_protect
from training.config.sections import Recipe
from training.data.sampling.mixture import refuse_empty, select_rows, splits_of
from training.data.sampling.order import SequentialOrder
from training.evaluation.split import read_split
from training.run.log import check_log_settings

EVERY = "*"  # in place of a split: what the build has
VALIDATION = {"val", "valid", "validation", "dev"}  # words in the names of splits for validation, not for tests
TESTS = {"eval", "evaluation", "test", "testing"}  # words in the names of splits for tests


def check_recipe(recipe: Recipe, manifest: Any) -> None:
    """``InputError`` for what would end the run after an epoch, or make its figures worthless."""
    check_log_settings(recipe.log)
    check_splits(recipe, manifest.table)
    split = recipe.validation.split
    if split is None:
        return
    held_out = select_rows(manifest.table, split)
    order = SequentialOrder(manifest.table, split, recipe.data, recipe.validation.batch)
    read_split(manifest.table, split, order, recipe.data)  # refuses clips without a caption of words
    for item in recipe.data.train:
        if (held_out & select_rows(manifest.table, item.split)).any():
            raise InputError(
                "validation.split is trained on: the best checkpoint would be the one that learnt it by heart",
                value=f"{split}, and data.train has {item.split}",
                remedy="name a split that is held out",
            )


def with_found_splits(recipe: Recipe, table: pa.Table) -> tuple[Recipe, list[str]]:
    """The recipe with the build's splits in place of ``*``, and lines that say which they are.

    ``data.train: [{split: "*"}]`` stands for every split that is not held out, and ``validation.split: "*"`` for the
    largest one that is held out for validation.  A split for tests is never used.
    """
    known, lines = splits_of(table), []
    held_out = _held_out(known)
    if any(item.split == EVERY for item in recipe.data.train):
        trained = [name for name in known if name not in held_out]
        if not trained:
            raise InputError(
                "every split of the shards is held out for validation or tests, so none can be trained on",
                value=", ".join(known),
                remedy="build with --protect that names the splits to hold out, or name a split in data.train",
            )
        train = [
            replace(item, split=name)
            for item in recipe.data.train
            for name in (trained if item.split == EVERY else [item.split])
        ]
        recipe = replace(recipe, data=replace(recipe.data, train=tuple(train)))
        lines.append(f"training on {', '.join(trained)}")
    if recipe.validation.split == EVERY:
        sizes = {name: int(select_rows(table, name).sum()) for name in _for_validation(held_out)}
        chosen = max(sorted(sizes), key=sizes.__getitem__, default=None)
        recipe = replace(recipe, validation=replace(recipe.validation, split=chosen))
        lines.append(
            "there is no split for validation, so the last weights are exported; "
            "`earshot build --split-by group` draws one"
            if chosen is None
            else f"validating on {chosen}"
        )
    return recipe, lines


def _held_out(known: list[str]) -> list[str]:
    """The splits that are protected from leaks."""
    protect = parse_protect()
    return [name for name in known if is_protected(name.partition("/")[0], name.partition("/")[2], protect)]


def _for_validation(held_out: list[str]) -> list[str]:
    """The splits whose names say that they are for validation, and not for tests."""
    return [name for name in held_out if VALIDATION & _words(name)]


def is_for_tests(split: str) -> bool:
    """Whether a split is for tests, as its name says."""
    return bool(TESTS & _words(split)) and not VALIDATION & _words(split)


def _words(split: str) -> set[str]:
    return set(re.findall("[a-z]+", split.partition("/")[2].lower()))


def check_splits(recipe: Recipe, table: pa.Table) -> None:
    """``InputError`` if the recipe names splits that the build lacks; it shows which options use the build's splits."""
    refuse_empty(table)
    known = splits_of(table)
    names = {*known, *(split.partition("/")[0] for split in known)}
    wanted = [*(item.split for item in recipe.data.train), recipe.validation.split]
    missing = [name for name in dict.fromkeys(wanted) if name is not None and name not in names]
    if missing:
        raise InputError(
            "the recipe names splits that the shards do not have",
            value=", ".join(missing),
            remedy=f"the shards have {', '.join(known)}" + _options(known),
        )


def _options(known: list[str]) -> str:
    """Options that make a recipe train and validate on these splits."""
    held_out = _held_out(known)
    trained = [name for name in known if name not in held_out]
    if not trained:
        return ""
    items = ", ".join(f"{{split: {split}}}" for split in trained)
    validation = [*_for_validation(held_out), *held_out, "null"][0]
    return f"; to use them: --set 'data.train=[{items}]' --set validation.split={validation}"
