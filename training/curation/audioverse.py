"""The form in which AuroLA's authors publish annotations: a JSON list of clips.

An item has an id (``id``, ``video_id``, ``image_id`` or ``image``) and either ``caption`` (a text, or a list of them)
or ``caption_long``, ``caption_short`` and ``caption_tag``, whose tags are separated by commas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sharding.common.errors import InputError
from training.curation.annotations import Annotation

IDS = ("id", "video_id", "image_id", "image")
_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mp4", ".webm")


def read_audioverse(file: Path, clip_ids: Iterable[str]) -> tuple[list[Annotation], int]:
    """The annotations of clips, and how many items name no clip of the build.

    An item belongs to the clip whose published name, without folders and suffix, is that of the item.

    Args:
        file: the JSON.
        clip_ids: the clips of the build.

    Raises:
        InputError: the file is missing or has another form, two clips have the name of an item, or two items one clip.
    """
    try:
        items = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"the annotations cannot be read: {error}", file=file) from error
    if not isinstance(items, list):
        raise InputError("the file does not hold a JSON list", file=file)
    clips: dict[str, list[str]] = {}
    for clip in clip_ids:
        clips.setdefault(_stem(clip), []).append(clip)
    found: dict[str, Annotation] = {}
    unknown = 0
    for number, item in enumerate(items, 1):
        name = _name(item, number, file)
        own = clips.get(_stem(name), [])
        if not own:
            unknown += 1
            continue
        if len(own) > 1:
            what = f"two clips have this name: {own[0]} and {own[1]}"
            raise InputError(what, file=file, row=number, value=name, remedy="annotate their datasets one by one")
        if own[0] in found:
            raise InputError("two items name one clip", file=file, row=number, value=name)
        found[own[0]] = _annotation(own[0], item, number, file)
    return list(found.values()), unknown


def _stem(name: str) -> str:
    last = PurePosixPath(name.replace("\\", "/")).name
    return last[: -len(suffix)] if (suffix := PurePosixPath(last).suffix.lower()) in _SUFFIXES else last


def _name(item: Any, number: int, file: Path) -> str:
    if isinstance(item, Mapping):
        for key in IDS:
            if isinstance(item.get(key), str | int) and str(item[key]).strip():
                return str(item[key])
    raise InputError("the item has no id", file=file, row=number, remedy="give it one of " + ", ".join(IDS))


def _annotation(clip: str, item: Mapping[str, Any], number: int, file: Path) -> Annotation:
    if "caption_long" in item or "caption_short" in item or "caption_tag" in item:
        long, short, tags = (_text(item.get(f"caption_{kind}"), number, file) for kind in ("long", "short", "tag"))
        return Annotation(clip, long, short, tuple(tag for tag in (tags or "").split(",") if tag.strip()))
    captions = item.get("caption")
    captions = captions if isinstance(captions, list) else [captions]
    texts = [text for each in captions if (text := _text(each, number, file))]
    if not texts:
        raise InputError("the item has no caption", file=file, row=number)
    return Annotation(clip, texts[1] if len(texts) > 1 else None, texts[0], ())


def _text(value: Any, number: int, file: Path) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError("the caption is not a text", file=file, row=number, value=value)
    return value or None
