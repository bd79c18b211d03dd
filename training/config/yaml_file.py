"""YAML as recipes use it: a plain tree of bounded size, and the row of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sharding.common.errors import InputError
from training.config.origin import KeyPath

LARGEST = 10_000  # values of a tree; a recipe has about a hundred, and aliases can stand for thousands of millions
DEEPEST = 50  # levels of a tree


def read_yaml(file: Path) -> tuple[Any, dict[KeyPath, int]]:
    """The tree of a YAML file, and the row of every key path.

    Raises:
        InputError: the file cannot be read, is not YAML, gives a key twice, or is larger or deeper than a
            recipe can be.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"cannot be read as text: {error}", file=file) from error
    tree, rows = parse_yaml(text, file)
    return ({} if tree is None else tree), rows


def parse_yaml(text: str, file: object) -> tuple[Any, dict[KeyPath, int]]:
    """``read_yaml`` of a text; errors name ``file``."""
    found = _Rows(file)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        found.note(node, ())
        return (None if node is None else _separated(loader.construct_document(node))), found.rows
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        row = None if mark is None else mark.line + 1
        raise InputError(
            f"not YAML: {getattr(error, 'problem', str(error).splitlines()[0])}", file=file, row=row
        ) from error
    except RecursionError as error:
        raise InputError(f"the values are nested more than {DEEPEST} levels deep", file=file) from error
    except (ValueError, OverflowError) as error:  # a text that looks like a date or a number of base 60 and is none
        raise InputError(f"not YAML: {error}", file=file, remedy="put texts into quotes") from error


@dataclass
class _Rows:
    """Collects the row of every key, and refuses a tree that is too large, too deep, or has a key twice."""

    file: object
    rows: dict[KeyPath, int] = field(default_factory=dict)
    values: int = 0

    def note(self, node: Any, path: KeyPath) -> None:
        self.values += 1
        if self.values > LARGEST:
            self._refuse(node, f"there are more than {LARGEST} values, counting what aliases stand for")
        if len(path) > DEEPEST:
            self._refuse(node, f"the values are nested more than {DEEPEST} levels deep")
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.note(item, (*path, str(number)))
        elif isinstance(node, yaml.MappingNode):
            self._note_keys(node, path)

    def _note_keys(self, node: yaml.MappingNode, path: KeyPath) -> None:
        for key, value in node.value:
            here = (*path, str(key.value))
            row = key.start_mark.line + 1
            if here in self.rows:
                what = f"the key {'.'.join(here)} is given twice"
                raise InputError(what, file=self.file, row=row, remedy=f"row {self.rows[here]} has it too")
            self.rows[here] = row
            self.note(value, here)

    def _refuse(self, node: Any, what: str) -> None:
        raise InputError(what, file=self.file, row=node.start_mark.line + 1, remedy="write the values out, without &")


def _separated(tree: Any) -> Any:
    """A copy in which two aliases of one value are two values, so that a change of one leaves the other alone."""
    if isinstance(tree, dict):
        return {key: _separated(value) for key, value in tree.items()}
    return [_separated(value) for value in tree] if isinstance(tree, list) else tree


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every value of a tree by its dotted key; an empty mapping counts as a value."""
    if not (isinstance(tree, Mapping) and tree):
        return {path: tree}
    return {
        name: value for key, below in tree.items() for name, value in leaves(below, f"{path}.{key}".strip(".")).items()
    }
