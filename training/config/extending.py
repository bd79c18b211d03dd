"""Recipes that extend another recipe: ``extends: NAME`` takes over every key that the recipe does not set itself.

Mappings are merged key by key; any other value, lists included, replaces the one that is extended.  A section that
names its component (``head: {name: ...}``) replaces the whole section, because another component has other keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.checks import nearest
from training.config.origin import KeyPath, Location, Origin
from training.config.sections import COMPONENT_KEYS
from training.config.yaml_file import read_yaml

RECIPES = Path(__file__).parent.parent / "recipes"
EXTENDS = "extends"


def find_recipe(name: str | Path, folder: Path = Path()) -> Path:
    """The file of a recipe: a path as seen from ``folder``, or the name of a recipe that comes with Earshot."""
    packaged = RECIPES / f"{name}.yaml"
    for file in (folder / name, packaged):
        if file.is_file():
            return file
    known = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
    remedy = nearest(str(name), known) + "name a YAML file or one of: " + ", ".join(known)
    raise InputError("no such recipe", file=name, remedy=remedy)


def read_recipe(file: Path, extending: tuple[Path, ...] = ()) -> tuple[Any, dict[KeyPath, Origin]]:
    """The plain tree of a recipe and of all that it extends, and the origin of every key.

    Args:
        file: the recipe's file.
        extending: the files that led here; a file that extends itself is refused.
    """
    tree, rows = read_yaml(file)
    origins = {path: Origin(file, row) for path, row in rows.items()}
    if not isinstance(tree, dict) or EXTENDS not in tree:
        return tree, origins
    location = Location(file, (EXTENDS,), origins)
    name = tree.pop(EXTENDS)
    if not isinstance(name, str):
        raise location.error("extends must name one recipe", value=name)
    try:
        base_file = find_recipe(name, file.parent)
    except InputError as error:
        raise location.error("extends names no recipe", value=name, remedy=error.remedy) from error
    chain = (*extending, file.resolve())
    if base_file.resolve() in chain:
        raise location.error("the recipe extends itself", value=" -> ".join(each.name for each in (*chain, base_file)))
    base, base_origins = read_recipe(base_file, chain)
    if not isinstance(base, dict):
        raise InputError("the recipe must be a mapping of keys to values", file=base_file)
    merged = _merged(base, tree)
    kept = {path: origin for path, origin in base_origins.items() if _holds(merged, path)}
    return merged, kept | origins


def _merged(base: Mapping[str, Any], own: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """``base`` with the values of ``own``."""
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        names_component = depth == 0 and isinstance(value, dict) and COMPONENT_KEYS.get(key) in value
        if isinstance(below, dict) and isinstance(value, dict) and not names_component:
            value = _merged(below, value, depth + 1)
        merged[key] = value
    return merged


def _holds(tree: Any, path: KeyPath) -> bool:
    """Whether a tree of mappings and lists has a value at a path."""
    for part in path:
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return False
    return True
