"""Identities: where a clip comes from, in one spelling, so that clips of one original recording can be found.

An identity is ``<scheme>:<id>``: ``freesound:117790``, ``bbc:NHU05051026``, ``soundbible:2219``, or
``youtube:<id>@<s>``, where ``@<s>`` is the second of the video at which the excerpt begins.
"""

from __future__ import annotations

import math
import re

_LONGEST_ID = 18  # digits; no Freesound id is longer
_FREESOUND = re.compile(r"(?:freesound\.org/(?:people/[^/]+/sounds|s)/)(\d+)")
_YOUTUBE = re.compile(r"(?:youtu\.be/|[?&]v=)([\w-]{11})(?:.*[?&](?:t|start)=(\d+(?:\.\d+)?)s?(?=[&#]|$))?")


def freesound(sound_id: str) -> str | None:
    """``freesound:<id>``, or None if the cell holds no id, as ``Not found`` and blanks do."""
    digits = sound_id.strip()
    known = digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_ID
    return f"freesound:{int(digits)}" if known else None


def id_remark(sound_id: str) -> str | None:
    """A remark on a cell that should hold a Freesound id and holds something else.

    Without its id, a clip cannot be recognised as an excerpt of a protected recording.
    """
    cell = sound_id.strip()
    return None if cell.lower() in ("", "not found") or freesound(cell) else f"not a Freesound id: {cell}"


def youtube(video_id: str, start_s: float | None = None) -> str:
    """``youtube:<id>``, with ``@<start>`` in seconds to three decimals where the start is known."""
    return f"youtube:{video_id}" if start_s is None else f"youtube:{video_id}@{start_s:.3f}"


def original_of(identity: str) -> str:
    """The identity of the whole original recording: the identity without the start of the excerpt."""
    return identity.partition("@")[0]


def normalised_identity(text: str) -> str | None:
    """The one spelling of an identity that a user wrote: ``scheme:value``, or a Freesound or YouTube address.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if text.lower() in ("", "not found", "none", "null"):
        return None
    if found := _FREESOUND.search(text):
        return freesound(found[1])
    if found := _YOUTUBE.search(text):
        return youtube(found[1], float(found[2]) if found[2] else None)
    scheme, colon, value = text.partition(":")
    scheme, value = scheme.strip().lower(), value.strip()
    if not colon or not value or not re.fullmatch(r"[a-z][a-z0-9_-]*", scheme) or value.startswith("//"):
        raise ValueError(text)
    if scheme == "freesound":
        identity = freesound(value)
        if identity is None and value.lower() != "not found":
            raise ValueError(text)
        return identity
    if scheme == "youtube":
        video_id, at, start = value.partition("@")
        if at and not 0 <= float(start) < math.inf:
            raise ValueError(text)
        return youtube(video_id, float(start) if at else None)
    return f"{scheme}:{value}"
