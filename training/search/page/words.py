"""What people type into the field of a page: words, and words with a minus for what should not be heard."""

from __future__ import annotations

import re

_TERM = re.compile(r'(?:^|(?<=\s))-(?:"([^"]*)"|([^\s"-][^\s"]*))')


def parse_words(typed: str) -> tuple[str, tuple[str, ...]]:
    """The description, and what should not be heard: ``dog -rain -"a loud engine"``.

    A minus counts only where a word begins, so that ``drive-by`` and ``rock - roll`` stay what they are.
    """
    without = tuple(
        " ".join(text.split()) for match in _TERM.finditer(typed) if (text := match[1] or match[2] or "").strip()
    )
    return " ".join(_TERM.sub(" ", typed).split()), without
