"""Where a value of a recipe comes from, so that an error names the right file and row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sharding.common.errors import InputError
from training.config.checks import nearest

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """The source of a key.

    Attributes:
        source: a file, or the text of an override (``--set KEY=VALUE``).
        row: the row in the file, from 1; None for an override.
    """

    source: object
    row: int | None = None


@dataclass(frozen=True)
class Location:
    """A key of a recipe while the recipe is read.

    Attributes:
        file: the recipe's file; it is named where no origin of the key is known.
        path: the key's parts; an empty path is the recipe as a whole.
        origins: the origin of every key that a file or an override sets.
        refused: keys of other trainers that Earshot refuses, each with the reason.
    """

    file: object
    path: KeyPath = ()
    origins: Mapping[KeyPath, Origin] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return ".".join(self.path) or "the recipe"

    @property
    def origin(self) -> Origin:
        """Where the key, or else the nearest key above it, was set; the override if only this made the section."""
        prefixes = [self.path[:length] for length in range(len(self.path), 0, -1)]
        below = (path for path in self.origins if self.path and path[: len(self.path)] == self.path)
        paths = [path for path in prefixes if path in self.origins] or list(below)
        return self.origins[paths[0]] if paths else Origin(self.file)

    def at(self, *parts: str) -> Location:
        """The location of a key below this one."""
        return replace(self, path=(*self.path, *parts))

    def error(self, what: str, value: object = None, remedy: str | None = None) -> InputError:
        """An ``InputError`` that names the file and row of this key."""
        origin = self.origin
        return InputError(what, file=origin.source, row=origin.row, value=value, remedy=remedy)

    def mapping(self, tree: Any) -> dict[str, Any]:
        """``tree`` as a mapping whose keys are text; an empty section is an empty mapping."""
        if tree is None:
            return {}
        if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
            raise self.error(f"{self.key} must be a mapping of keys to values", value=tree)
        return tree

    def check_keys(self, mapping: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse the first unknown key, and name the most similar valid one."""
        valid = list(known)
        for key in mapping:
            if key in valid:
                continue
            here = self.at(key)
            if key in self.refused:
                raise here.error(f"the key {here.key} is refused", remedy=self.refused[key])
            raise here.error(
                f"unknown key {here.key}", remedy=nearest(key, valid) + "valid: " + ", ".join(sorted(valid))
            )
