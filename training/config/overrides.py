"""Changes of single keys of a recipe: ``--set key.path=value``."""

from __future__ import annotations

from typing import Any

from sharding.common.errors import InputError
from training.config.origin import KeyPath
from training.config.yaml_file import parse_yaml


def apply_override(tree: Any, override: str) -> KeyPath:
    """Set one ``key.path=value`` in the plain tree of a recipe, and return the key's path.  The value is YAML.

    Raises:
        InputError: the override has another form, its value is not YAML, or a key above it holds a value.
    """
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise InputError("--set must read KEY=VALUE, such as optimizer.lr=1e-4", value=override)
    if not isinstance(tree, dict):
        raise InputError("the recipe must be a mapping of keys to values", value=tree)
    node = tree
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise InputError(f"{part!r} has no keys below it", file=f"--set {override}", value=key)
    node[path[-1]], _ = parse_yaml(text, f"--set {override}")
    return path
