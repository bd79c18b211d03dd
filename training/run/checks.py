"""Checks of a recipe against a build, before anything else begins."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.sources.protected import is_protected, parse_protect
from training.config.sections import Recipe
from training.data.mixture import select_rows, splits_of
from training.data.order import SequentialOrder
from training.evaluation.split import read_split
from training.run.log import check_log_settings


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


def check_splits(recipe: Recipe, table: pa.Table) -> None:
    """``InputError`` if the recipe names splits that the build lacks; it shows which options use the build's splits."""
    known = splits_of(table)
    names = {*known, *(split.partition("/")[0] for split in known)}
    wanted = [*(item.split for item in recipe.data.train), recipe.validation.split]
    missing = [name for name in dict.fromkeys(wanted) if name is not None and name not in names]
    if missing:
        raise InputError(
            "the recipe names splits that the shards do not have",
            value=", ".join(missing),
            remedy=f"the shards have {', '.join(known) or 'no samples'}" + _options(known),
        )


def _options(known: list[str]) -> str:
    """Options that make a recipe train and validate on these splits."""
    protect = parse_protect()
    held_out = []
    for name in known:
        dataset, _, split = name.partition("/")
        if is_protected(dataset, split, protect):
            held_out.append(name)
    trained = [name for name in known if name not in held_out]
    if not trained:
        return ""
    items = ", ".join(f"{{split: {split}}}" for split in trained)
    validation = held_out[0] if held_out else "null"
    return f"; to use them: --set 'data.train=[{items}]' --set validation.split={validation}"
