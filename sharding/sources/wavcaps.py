"""WavCaps (Mei et al., TASLP 2024; huggingface.co/datasets/cvssp/WavCaps): four parts, captions by ChatGPT.

Audio is 32 kHz mono FLAC in folders named after the part (``FreeSound``, ``FreeSound_flac``, ...), or in the published
zip archives, which are read without unpacking.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, json_items, keywords, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import freesound, youtube
from sharding.sources.tree import AudioIndex, Tree, climbs, folders

NAME = "wavcaps"
PUBLISHED = {
    "FreeSound": (262300, 262300),
    "BBC_Sound_Effects": (31201, 31201),
    "SoundBible": (1232, 1232),
    "AudioSet_SL": (108317, 108317),
}
LICENCE = "academic use only (WavCaps)"
_VIDEO = re.compile(r"Y([\w-]{11})$")


@dataclass(frozen=True)
class _Part:
    """How the JSON tables of one part are read.

    Attributes:
        tables: file names; the first table has all clips, and later ones only add captions that it lacks.
        identity: makes an identity of a published id.
        title, uploader, keywords: keys of an item.
        whole: whether a recording is the whole of its original.
    """

    tables: tuple[str, ...]
    identity: Callable[[str], str | None]
    title: str = "title"
    uploader: str = "author"
    keywords: str = ""
    whole: bool = True


def _video(stem: str) -> str | None:
    found = _VIDEO.match(stem)
    return youtube(found[1]) if found else None


PARTS = {
    "FreeSound": _Part(("fsd_final.json", "fsd_final_2s.json"), freesound, title="file_name", keywords="tags"),
    "BBC_Sound_Effects": _Part(
        ("bbc_final.json",), lambda stem: f"bbc:{stem}", title="description", keywords="category"
    ),
    "SoundBible": _Part(("sb_final.json",), lambda stem: f"soundbible:{stem}"),
    # Ten seconds of a video; the published id does not say which.
    "AudioSet_SL": _Part(("as_final.json",), _video, whole=False),
}


@dataclass
class _Report:
    notes: list[str] = field(default_factory=list)
    claimed: set[str] = field(default_factory=set)


def read(root: Storage) -> DatasetTables:
    """Every row of the parts whose JSON is present, with its audio."""
    tree = Tree(root)
    audio = _audio_by_part(tree)
    rows = CatalogueBuilder(NAME, tree.outside)
    report = _Report()
    for name, part in PARTS.items():
        tables = [path for table in part.tables if (path := tree.one(table))]
        if not tables:
            report.notes.append(f"no table of {name} ({part.tables[0]})")
            continue
        if part.tables[0] not in {posixpath.basename(path) for path in tables}:
            report.notes.append(f"{part.tables[0]} is absent; {tables[0]} holds only a part of {name}")
        index = tree.index(audio[name])
        for path in tables:
            _read_part(tree, path, name, rows, index, report)
    if not len(rows) and len(report.notes) == len(PARTS):
        raise InputError(
            "the folder holds no WavCaps table",
            file=root.url,
            remedy="put json_files/ (fsd_final.json, bbc_final.json, sb_final.json, as_final.json) into the folder",
        )
    if len(rows.used_paths()) < len(rows):
        report.notes += tree.advice
    orphans = tree.orphans(NAME, report.claimed)
    return DatasetTables(rows.table(), orphans, tuple(report.notes))


def _audio_by_part(tree: Tree) -> dict[str, list[str]]:
    """Audio by part: that of the innermost folder (or archive) that is named after a part."""
    found: dict[str, list[str]] = {name: [] for name in PARTS}
    owner: dict[str, str | None] = {}
    called = {
        name: re.compile(rf"{name}(_(flac|mp3|wav|ogg|opus|merged|whole|audio))*$", re.IGNORECASE) for name in PARTS
    }
    for path in tree.audio:
        folder = path.rpartition("/")[0]
        if folder not in owner:
            owner[folder] = next(
                (name for parent in reversed(folders(path)) for name in PARTS if called[name].match(parent)), None
            )
        name = owner[folder]
        if name is not None:
            found[name].append(path)
    return found


def _read_part(tree: Tree, path: str, name: str, rows: CatalogueBuilder, index: AudioIndex, report: _Report) -> None:
    part, file = PARTS[name], tree.name(path)
    repeats_first = posixpath.basename(path) != part.tables[0]
    seen: set[str] = set()
    for number, item in _items(tree, path):
        stem, caption = _id_and_caption(item, file, number)
        clip_id = rows.clip_id(name, stem)
        captions = [PublishedCaption(caption, "machine")] if caption.strip() else []
        if clip_id in rows and repeats_first and clip_id not in seen:
            seen.add(clip_id)
            if captions:
                rows.merge(clip_id, captions, f"also in {posixpath.basename(path)}")
            continue
        if clip_id in rows:
            rows.merge(clip_id, captions, f"its id occurs twice in {posixpath.basename(path)}")
            continue
        seen.add(clip_id)
        paths = [] if climbs(stem) else index.all(stem)
        report.claimed.update(paths)
        _add(rows, name, stem, item, paths, captions)


def _items(tree: Tree, path: str) -> Iterator[tuple[int, Any]]:
    with tree.root.open(path) as stream:
        yield from json_items(stream, tree.name(path))


def _id_and_caption(item: Any, file: str, number: int) -> tuple[str, str]:
    """The id without ``.wav``, and the caption.

    Raises:
        InputError: the item lacks one of them.
    """
    if not isinstance(item, dict):
        raise InputError("the item is not an object", file=file, row=number, value=item, remedy=FETCH_AGAIN)
    lacking = [key for key in ("id", "caption") if not isinstance(item.get(key), (str, int))]
    if lacking:
        raise InputError(
            f"the item lacks {' and '.join(lacking)}",
            file=file,
            row=number,
            value=str(item)[:80],
            remedy="use the published file; each item has id, caption and duration",
        )
    return str(item["id"]).removesuffix(".wav"), str(item["caption"])


def _add(
    rows: CatalogueBuilder,
    name: str,
    stem: str,
    item: dict[str, Any],
    paths: list[str],
    captions: list[PublishedCaption],
) -> None:
    part = PARTS[name]
    value = item.get("duration")
    duration = seconds(value) if isinstance(value, (int, float, str)) else None
    notes = []
    if duration is None:
        notes.append("no duration in the table")
    elif duration <= 0:
        notes.append("duration 0 in the table: published as a file of length zero")
    if not captions:
        notes.append("empty caption in the table")
    if len(paths) > 1:
        notes.append("further copies of its audio: " + ", ".join(paths[1:]))
    identity = part.identity(stem)
    if identity is None:
        notes.append(f"its id is not one of {name}")
    whole = (0.0, duration or None) if part.whole and identity and (duration is None or duration > 0) else None
    rows.add(
        name,
        stem,
        split="train",
        path=paths[0] if paths else None,
        out_of_root=climbs(stem),
        captions=captions,
        identity=identity,
        interval=whole,
        licence=LICENCE,
        uploader=_text(item.get(part.uploader)),
        title=_text(item.get(part.title)),
        keywords=_keywords(item.get(part.keywords)) if part.keywords else (),
        duration_s=duration,
        notes=notes,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _keywords(value: Any) -> Sequence[str]:
    return [str(word) for word in value] if isinstance(value, list) else keywords(_text(value) or "")


DATASET = PublishedDataset(NAME, read, PUBLISHED, splits=("train",))
