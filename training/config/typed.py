"""Plain trees into frozen dataclasses, strictly: every key is known, and every value has its declared type."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from sharding.common.errors import InputError
from training.config.checks import nearest
from training.config.origin import Location


def from_tree(kind: Any, tree: Any, location: Location) -> Any:
    """``tree`` as a value of type ``kind``, or an ``InputError`` that names the key.

    The types may be dataclasses, bool, int, float, str, Literal, Optional and unions, tuple, list, dict and Any.
    A text such as ``2e-5`` counts as a float where a float is wanted, because YAML 1.1 reads it as text.  Numbers
    must be finite, and whole numbers must fit into 64 bits.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, tree, location)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return tree
    if origin is typing.Literal:
        if not any(tree == option and type(tree) is type(option) for option in arguments):
            options = ", ".join(map(str, arguments))
            hint = nearest(tree, [o for o in arguments if isinstance(o, str)]) if isinstance(tree, str) else ""
            raise location.error(f"{location.key} has no such choice", value=tree, remedy=f"{hint}valid: {options}")
        return tree
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, tree, location)
    if origin in (tuple, list):
        return _sequence(origin, arguments, tree, location)
    if origin in (dict, Mapping):
        return {key: from_tree(arguments[1], value, location.at(key)) for key, value in location.mapping(tree).items()}
    return _scalar(kind, tree, location)


def _dataclass(kind: Any, tree: Any, location: Location) -> Any:
    mapping = location.mapping(tree)
    hints = typing.get_type_hints(kind)
    known = {each.name: each for each in fields(kind) if each.init}
    location.check_keys(mapping, known)
    for name, each in known.items():
        if name not in mapping and each.default is MISSING and each.default_factory is MISSING:
            raise location.error(
                f"the key {location.at(name).key} is missing", remedy="it has no default: say what you want"
            )
    values = {name: from_tree(hints[name], value, location.at(name)) for name, value in mapping.items()}
    try:
        return kind(**values)
    except InputError as error:
        found = _blamed(location, mapping, error.what)
        raise found.error(f"{location.key}: {error.what}", value=error.value, remedy=error.remedy) from error
    except ValueError as error:
        raise _blamed(location, mapping, str(error)).error(f"{location.key}: {error}") from error


def _blamed(location: Location, mapping: Mapping[str, Any], what: str) -> Location:
    """The key of a section that an error names, one that an option has set first; else the section itself."""
    named = [location.at(name) for name in mapping if re.search(rf"\b{re.escape(name)}\b", what)]
    return min(named, key=lambda each: each.origin.row is not None, default=location)


def _union(options: tuple[Any, ...], tree: Any, location: Location) -> Any:
    if tree is None and type(None) in options:
        return None
    wanted = [option for option in options if option is not type(None)]
    for option in wanted:
        try:
            return from_tree(option, tree, location)
        except InputError:
            if len(wanted) == 1:
                raise
    raise location.error(f"{location.key} must be {_name(options)}", value=tree)


def _sequence(origin: Any, arguments: tuple[Any, ...], tree: Any, location: Location) -> Any:
    if not isinstance(tree, list | tuple):
        raise location.error(f"{location.key} must be a list", value=tree, remedy="write [a, b]")
    if origin is tuple and Ellipsis not in arguments:
        if len(tree) != len(arguments):
            raise location.error(f"{location.key} must have {len(arguments)} items", value=tree)
        kinds: tuple[Any, ...] = arguments
    else:
        kinds = (arguments[0],) * len(tree)
    items = zip(kinds, tree, strict=True)
    return origin(from_tree(kind, item, location.at(str(number))) for number, (kind, item) in enumerate(items))


def _scalar(kind: Any, tree: Any, location: Location) -> Any:
    if kind is float and isinstance(tree, int | float | str) and not isinstance(tree, bool):
        try:
            if math.isfinite(float(tree)):
                return float(tree)
        except (ValueError, OverflowError):
            pass
    elif type(tree) is kind and not (kind is int and tree.bit_length() > 63):
        return tree
    raise location.error(f"{location.key} must be {_name((kind,))}", value=tree)


def _name(kinds: tuple[Any, ...]) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return " or ".join(
        f"a list of {_name(typing.get_args(kind)[:1])}"
        if typing.get_origin(kind) in (tuple, list)
        else words.get(kind, str(kind))
        for kind in kinds
    )
