"""A whole training run in one YAML file: read, extended, overridden and checked.

A section that chooses a component (``audio: {encoder: passt, ...}``) has the keys of the ``Settings`` of that
component's module, so a new encoder, head or loss brings its own keys and nothing here changes.
"""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.checks import nearest
from training.config.extending import find_recipe, read_recipe
from training.config.origin import KeyPath, Location, Origin
from training.config.overrides import apply_override
from training.config.refusals import REFUSED_KEYS, refuse_dangerous
from training.config.sections import COMPONENT_KEYS, Recipe
from training.config.typed import from_tree
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, encoder_module
from training.models.encoders.outside import is_outside, located
from training.models.heads import HEADS
from training.objectives.pairs import LOSSES
from training.tasks import TASKS

# The sections that choose a component: the registry in which its name is looked up.
REGISTRIES: Mapping[str, Mapping[str, str]] = {
    "task": TASKS,
    "audio": AUDIO_ENCODERS,
    "text": TEXT_ENCODERS,
    "head": HEADS,
    "loss": LOSSES,
}
RETRIEVAL = {"name": "retrieval"}  # the task of recipes that name none


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key.path=value`` overrides, whose values are YAML.

    Args:
        path: a file, or the name of a recipe that comes with Earshot (``demo``).
        overrides: changes of single keys.

    Raises:
        InputError: it names the file, the row, the key and the most similar valid key.
    """
    file = find_recipe(path)
    tree, origins = read_recipe(file)
    for override in overrides:
        key = apply_override(tree, override)
        origins = {other: origin for other, origin in origins.items() if other[: len(key)] != key}
        origins[key] = Origin(f"--set {override}")
    return parse_recipe(tree, file, origins)


def parse_recipe(tree: Any, file: object = None, origins: Mapping[KeyPath, Origin] | None = None) -> Recipe:
    """A recipe from the plain tree of a YAML file; ``origins`` says where each key was set."""
    recipe_location = Location(file, (), origins or {}, REFUSED_KEYS)
    mapping = recipe_location.mapping(tree)
    recipe_location.check_keys(mapping, [section.name for section in fields(Recipe)])
    types = typing.get_type_hints(Recipe)
    values: dict[str, Any] = {"task": _component("task", mapping.get("task", RETRIEVAL), recipe_location.at("task"))}
    needed = pkgutil.resolve_name(TASKS[values["task"].name]).SECTIONS
    for section in fields(Recipe):
        location = recipe_location.at(section.name)
        if section.name == "task":
            continue
        if section.name in REGISTRIES:
            if mapping.get(section.name) is None:
                if section.name in needed:
                    raise _missing(section.name, recipe_location)
            elif section.name not in needed:
                what = f"the task {values['task'].name} has no {section.name}"
                raise location.error(what, remedy=f"remove the section, or set {section.name}: null")
            else:
                values[section.name] = _component(section.name, mapping[section.name], location)
        elif section.name in mapping:
            values[section.name] = from_tree(types[section.name], mapping[section.name], location)
        elif section.default is MISSING and section.default_factory is MISSING:
            raise _missing(section.name, recipe_location)
    recipe = Recipe(**values)
    refuse_dangerous(recipe, recipe_location)
    return recipe


def _missing(section: str, location: Location) -> InputError:
    return location.error(f"the section {section!r} is missing", remedy="add it to the recipe")


def _component(section: str, tree: Any, location: Location) -> Any:
    """The ``Settings`` of the component that a section chooses."""
    key, registry = COMPONENT_KEYS[section], REGISTRIES[section]
    mapping = location.mapping(tree)
    if key not in mapping:
        what = f"{location.key} does not say which: the key {key!r} is missing"
        raise location.error(what, remedy=_valid(registry))
    name = mapping[key]
    if key == "encoder" and is_outside(name):
        source = location.at(key).origin.source
        name = located(name, source if isinstance(source, Path) else location.file)
        return from_tree(encoder_module(registry, name).Settings, {**mapping, key: name}, location)
    if not isinstance(name, str) or name not in registry:
        advice = nearest(name, registry) if isinstance(name, str) else ""
        raise location.at(key).error(f"unknown {location.key} {key}", value=name, remedy=advice + _valid(registry))
    return from_tree(pkgutil.resolve_name(registry[name]).Settings, mapping, location)


def _valid(registry: Iterable[str]) -> str:
    return "valid: " + ", ".join(sorted(registry))
