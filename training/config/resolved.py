"""A recipe as it was resolved: written back as YAML, named by a digest, and compared with another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import yaml

from training.config.sections import Recipe
from training.config.yaml_file import leaves
from training.models.encoders.outside import contents, is_outside

_ENCODERS = ("audio.encoder", "text.encoder")
# Keys that may change when a run is resumed: they decide how a step is computed, and not what is computed.
_FREE_ON_RESUME = (
    *("engine", "checkpoint", "validation", "log"),
    *("data.workers", "data.readahead", "data.max_failures", "data.stored", "data.stored_folder"),
)
# Keys of those sections that may not change: they decide what is exported, or which figures are compared.
_FIXED_ON_RESUME = ("engine.ema", "validation.split", "validation.first")


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a plain tree with every default written out; ``parse_recipe`` reads it back unchanged.

    Sizes of an encoder that the source of its weights decides are left out, because the recipe does not know them.
    """
    return {section.name: _plain(getattr(recipe, section.name)) for section in fields(Recipe)}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; ``load_recipe`` reads it back unchanged."""
    return yaml.safe_dump(to_tree(recipe), sort_keys=False, allow_unicode=True, width=110)


def digest(recipe: Recipe) -> str:
    """A short name of a run's recipe: equal for two recipes that `differences` finds equal.

    Raises ``InputError`` if the file of a user's own encoder cannot be read.
    """
    canonical = json.dumps(_fixed(recipe), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The keys whose change would make a resumed run another run, as ``key: old -> new``."""
    before, after = _fixed(old), _fixed(new)
    changed = [key for key in before | after if before.get(key, MISSING) != after.get(key, MISSING)]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in changed]


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The value of every key that a resumed run may not change.

    A user's own encoder counts by the contents of its file, which may have moved.
    """
    values = leaves(to_tree(recipe))
    values |= {key: contents(name) for key, name in values.items() if key in _ENCODERS and is_outside(name)}
    return {
        key: value
        for key, value in values.items()
        if key in _FIXED_ON_RESUME or not any(key == free or key.startswith(free + ".") for free in _FREE_ON_RESUME)
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        left_out = value.decided_by_source() if hasattr(value, "decided_by_source") else ()
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name not in left_out}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
