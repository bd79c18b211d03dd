"""YAML into frozen dataclasses, strictly: every key known, every value of its declared type."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from sharding.common.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where in which file a value stands, so that an error can say so.

    ``rows``: of keys; text for those that do not come from the file, which says whence.
    """

    file: object
    path: tuple[str, ...]
    rows: Mapping[tuple[str, ...], int | str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)  # foreign keys and why they do not exist

    @property
    def key(self) -> str:
        return ".".join(self.path) or "the recipe"

    def at(self, *parts: str) -> Place:
        return Place(self.file, (*self.path, *parts), self.rows, self.refused)

    def error(self, what: str, value: object = None, remedy: str | None = None) -> InputError:
        row = next(
            (self.rows[self.path[:n]] for n in range(len(self.path), 0, -1) if self.path[:n] in self.rows),
            None,
        )
        if isinstance(row, str):
            return InputError(what, file=row, value=value, remedy=remedy)
        return InputError(what, file=self.file, row=row, value=value, remedy=remedy)

    def mapping(self, tree: Any) -> dict[str, Any]:
        """``tree`` as a mapping with text keys; an empty section is an empty mapping."""
        if tree is None:
            return {}
        if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
            raise self.error(f"{self.key} must be a mapping of keys to values", value=tree)
        return tree

    def check_keys(self, mapping: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse the first unknown key, naming the nearest valid one."""
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


def nearest(word: str, valid: Iterable[str]) -> str:
    """``did you mean 'x'? `` or nothing."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def require(holds: bool, what: str, value: object) -> None:
    """``InputError`` where something does not hold."""
    if not holds:
        raise InputError(what, value=value)


def check_positive(settings: Any, *names: str) -> None:
    """``InputError`` where one of these numbers of a dataclass is given and not above 0."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise InputError(f"{name} must be positive", value=value)


def check_dropout(settings: Any, *names: str) -> None:
    """``InputError`` where one of these rates of a dataclass is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name} must be in [0, 1)", value=getattr(settings, name))


def check_multiple(settings: Any, width: str, heads: str = "heads") -> None:
    """``InputError`` where a dataclass's width cannot be shared out to its attention heads."""
    check_positive(settings, width, heads)
    if getattr(settings, width) % getattr(settings, heads):
        remedy = f"there are {getattr(settings, heads)} heads"
        raise InputError(f"{width} must be a multiple of heads", value=getattr(settings, width), remedy=remedy)


def read_yaml(file: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """A YAML file's tree, and the row of every key path; a key given twice is an error."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        row = None if mark is None else mark.line + 1
        raise InputError(f"not YAML: {getattr(error, 'problem', error)}", file=file, row=row) from error
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"cannot be read as text: {error}", file=file) from error
    except ValueError as error:  # what looks like a date and is none
        raise InputError(f"not YAML: {error}", file=file, remedy="put texts into quotes") from error
    rows: dict[tuple[str, ...], int] = {}
    try:
        _note_rows(node, (), rows, file)
    except RecursionError as error:
        raise InputError("an anchor stands inside itself", file=file) from error
    return ({} if tree is None else tree), rows


def _note_rows(node: Any, path: tuple[str, ...], rows: dict[tuple[str, ...], int], file: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _note_rows(item, (*path, str(number)), rows, file)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*path, str(key.value))
        row = key.start_mark.line + 1
        if here in rows:
            raise InputError(
                f"the key {'.'.join(here)} is given twice",
                file=file,
                row=row,
                remedy=f"row {rows[here]} has it too",
            )
        rows[here] = row
        _note_rows(value, here, rows, file)


def build(kind: Any, tree: Any, place: Place) -> Any:
    """``tree`` as a value of type ``kind``, or an ``InputError`` that names the key.

    Understands dataclasses, bool, int, float, str, Literal, Optional and unions, tuple, list, dict and Any.
    Text such as ``2e-5`` counts as a float where one is wanted (YAML 1.1 reads it as text).  Numbers are finite, and
    whole ones fit into 64 bits.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, tree, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return tree
    if origin is typing.Literal:
        if not any(tree == option and type(tree) is type(option) for option in arguments):
            options = ", ".join(map(str, arguments))
            hint = nearest(tree, [o for o in arguments if isinstance(o, str)]) if isinstance(tree, str) else ""
            raise place.error(f"{place.key} has no such choice", value=tree, remedy=f"{hint}valid: {options}")
        return tree
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, tree, place)
    if origin in (tuple, list):
        return _sequence(origin, arguments, tree, place)
    if origin in (dict, Mapping):
        return {key: build(arguments[1], value, place.at(key)) for key, value in place.mapping(tree).items()}
    return _scalar(kind, tree, place)


def _dataclass(kind: Any, tree: Any, place: Place) -> Any:
    mapping = place.mapping(tree)
    hints = typing.get_type_hints(kind)
    known = {each.name: each for each in fields(kind) if each.init}
    place.check_keys(mapping, known)
    for name, each in known.items():
        if name not in mapping and each.default is MISSING and each.default_factory is MISSING:
            raise place.error(f"the key {place.at(name).key} is missing", remedy="it has no default: say what you want")
    values = {name: build(hints[name], value, place.at(name)) for name, value in mapping.items()}
    try:
        return kind(**values)
    except InputError as error:
        raise place.error(f"{place.key}: {error.what}", value=error.value, remedy=error.remedy) from error
    except ValueError as error:
        raise place.error(f"{place.key}: {error}") from error


def _union(options: tuple[Any, ...], tree: Any, place: Place) -> Any:
    if tree is None and type(None) in options:
        return None
    wanted = [option for option in options if option is not type(None)]
    for option in wanted:
        try:
            return build(option, tree, place)
        except InputError:
            if len(wanted) == 1:
                raise
    raise place.error(f"{place.key} must be {_name(options)}", value=tree)


def _sequence(origin: Any, arguments: tuple[Any, ...], tree: Any, place: Place) -> Any:
    if not isinstance(tree, list | tuple):
        raise place.error(f"{place.key} must be a list", value=tree, remedy="write [a, b]")
    if origin is tuple and Ellipsis not in arguments:
        if len(tree) != len(arguments):
            raise place.error(f"{place.key} must have {len(arguments)} items", value=tree)
        return tuple(build(kind, item, place) for kind, item in zip(arguments, tree, strict=True))
    return origin(build(arguments[0], item, place) for item in tree)


def _scalar(kind: Any, tree: Any, place: Place) -> Any:
    if kind is float and isinstance(tree, int | float | str) and not isinstance(tree, bool):
        try:
            if math.isfinite(float(tree)):
                return float(tree)
        except (ValueError, OverflowError):
            pass
    elif type(tree) is kind and not (kind is int and tree.bit_length() > 63):
        return tree
    raise place.error(f"{place.key} must be {_name((kind,))}", value=tree)


def _name(kinds: tuple[Any, ...]) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return " or ".join(words.get(kind, str(kind)) for kind in kinds)
