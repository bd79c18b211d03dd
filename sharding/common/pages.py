"""HTML pages: the templates that they share, and values that cannot act in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from sharding.common.terminal import printable

TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of these folders, then those that pages share (``base.html``, ``macros.html``).

    Every value that a page shows is escaped.

    Characters that are not shown as themselves are escaped as in a terminal, so that also the page's source can be
    shown in one.
    """
    loader = jinja2.FileSystemLoader([*folders, TEMPLATES])
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown)


def _shown(value: Any) -> Any:
    """A value as a page shows it; what has ``__html__`` was written by a macro, and is part of the page already."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
