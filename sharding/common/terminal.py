"""Text for a terminal: captions, paths and ids come from data, and must not act on the terminal that shows them."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable


def printable(text: str) -> str:
    """``text`` on one line, with every character escaped that is not shown as itself.

    These are control characters, line breaks, characters that reverse or hide text, and halves of characters.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def page(lines: Iterable[str]) -> str:
    """Each of ``lines`` printable, on a line of its own."""
    return "\n".join(map(printable, lines))


def accept_any_text() -> None:
    """Let this process print any text in any locale: what the encoding of a stream lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"  # spaces of any width
