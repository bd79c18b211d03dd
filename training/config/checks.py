"""Checks that settings make of themselves, and the suggestion of a similar word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from sharding.common.errors import InputError


def nearest(word: str, valid: Iterable[str]) -> str:
    """``did you mean 'x'? ``, or an empty text where no valid word is similar."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def require(holds: bool, what: str, value: object) -> None:
    """Raise ``InputError(what)`` unless ``holds``."""
    if not holds:
        raise InputError(what, value=value)


def check_positive(settings: Any, *names: str) -> None:
    """Raise ``InputError`` if one of these fields of a dataclass is a number that is not above 0."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise InputError(f"{name} must be positive", value=value)


def check_dropout(settings: Any, *names: str) -> None:
    """Raise ``InputError`` if one of these rates of a dataclass is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name} must be in [0, 1)", value=getattr(settings, name))


def refuse_sizes(settings: Any, who: str, remedy: str) -> None:
    """Raise ``InputError`` if a size is set that the source of the weights decides.

    Args:
        settings: a dataclass with ``decided_by_source()``, the names of these fields; one that has its default counts
            as not set.
        who: what decides them, for the message.
        remedy: what to do instead.
    """
    for name in settings.decided_by_source():
        if getattr(settings, name) != getattr(type(settings), name):
            raise InputError(f"{who} decides {name}", value=getattr(settings, name), remedy=remedy)


def check_multiple(settings: Any, width: str, heads: str = "heads") -> None:
    """Raise ``InputError`` if the width of a dataclass is not a multiple of its number of attention heads."""
    check_positive(settings, width, heads)
    if getattr(settings, width) % getattr(settings, heads):
        remedy = f"there are {getattr(settings, heads)} heads"
        raise InputError(f"{width} must be a multiple of heads", value=getattr(settings, width), remedy=remedy)
