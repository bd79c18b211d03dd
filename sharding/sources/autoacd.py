"""Auto-ACD (Sun et al., ACM MM 2024): clips of AudioSet and VGGSound with captions that models wrote.

Both published forms are read, for the splits train, val and test, of which val and test are protected:

- ``train.csv`` and ``test.csv`` of Auto-ACD's authors (huggingface.co/datasets/Loie/Auto-ACD), with the columns
  ``youtube_id``, which for clips of VGGSound also says when the clip begins (``Ch_RpcvHirQ_000184``), and ``caption``;
- ``test.json`` of AuroLA's authors, a list of ``{"id": "VGGSound/audio/Ch_RpcvHirQ_000184.flac", "caption": ["..."]}``,
  whose captions may also be one text.

An id is the file's place below the folder; where there is no such file, the audio is found by its name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows, json_items
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs, stem_of

NAME = "autoacd"
SPLITS = ("train", "val", "test")
COLUMNS = ("youtube_id", "caption")
LICENCE = "Auto-ACD's captions; parts of YouTube videos"
LEAST_AUDIO = 0.7  # videos disappear
_SEGMENT = re.compile(r"([\w-]{11})(?:_(\d{6}))?")


def read(root: Storage) -> DatasetTables:
    """Every item of every table, with its captions."""
    tree = Tree(root)
    paths = {split: _table(tree, split) for split in SPLITS}
    if not any(paths.values()):
        remedy = "put train.csv and test.csv of huggingface.co/datasets/Loie/Auto-ACD into it, or AuroLA's test.json"
        raise InputError("the folder holds no train, val or test table (.csv or .json)", file=root.url, remedy=remedy)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for split, path in paths.items():
        if path is not None:
            _add_all(tree, rows, index, split, path)
    notes = [f"{split}.csv and {split}.json are absent" for split, path in paths.items() if path is None]
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def _table(tree: Tree, split: str) -> str | None:
    """The table of a split; ``InputError`` if there are two."""
    found = [path for suffix in ("csv", "json") if (path := tree.one(f"{split}.{suffix}"))]
    if len(found) > 1:
        remedy = "keep one of them, and move the other out of the folder"
        raise InputError(
            f"there are two tables of one split: {found[0]} and {found[1]}", file=tree.root.url, remedy=remedy
        )
    return found[0] if found else None


def _add_all(tree: Tree, rows: CatalogueBuilder, index: AudioIndex, split: str, path: str) -> None:
    file, is_csv = tree.name(path), path.lower().endswith(".csv")
    for number, name, captions in _csv_items(tree, path) if is_csv else _json_items(tree, path):
        stem, outside = stem_of(name), climbs(name)
        if (clip := rows.clip_id(split, stem)) in rows:
            if is_csv:
                rows.merge(clip, captions, "several rows of the table name it")
                continue
            raise InputError("two items name one clip", file=file, row=number, value=name[:80], remedy=FETCH_AGAIN)
        segment = _SEGMENT.fullmatch(stem)
        start = None if segment is None or segment[2] is None else float(segment[2])
        rows.add(
            split,
            stem,
            path=None if outside else tree.find(name) or index.one(stem) or index.one(f"Y{stem}"),
            out_of_root=outside,
            captions=captions,
            identity=None if segment is None else youtube(segment[1], start),
            interval=None if start is None else (start, None),
            licence=LICENCE,
        )


def _csv_items(tree: Tree, path: str) -> Iterator[tuple[int, str, list[PublishedCaption]]]:
    """(line, id, caption) of each row."""
    file = tree.name(path)
    for number, cells in csv_rows(tree.text(path), file, COLUMNS):
        name, text = (cells[column].strip() for column in COLUMNS)
        if not name:
            raise InputError("the row has no youtube_id", file=file, row=number, value=text[:80], remedy=FETCH_AGAIN)
        yield number, name, [PublishedCaption(text, "machine")] if text else []


def _json_items(tree: Tree, path: str) -> Iterator[tuple[int, str, list[PublishedCaption]]]:
    """(number, id, captions) of each item."""
    file = tree.name(path)
    for number, item in json_items(io.BytesIO(tree.read(path)), file):
        name, texts = _parse(item)
        if name is None or texts is None:
            what = 'not an item of "id" (a text) and "caption" (a text, or a list of texts)'
            raise InputError(what, file=file, row=number, value=str(item)[:80], remedy=FETCH_AGAIN)
        yield number, name, [PublishedCaption(text, "machine") for text in dict.fromkeys(texts)]


def _parse(item: Any) -> tuple[str | None, list[str] | None]:
    """The id and the captions of an item; None if there is none."""
    if not isinstance(item, Mapping):
        return None, None
    name, texts = item.get("id"), item.get("caption")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        texts = None
    known = isinstance(name, str) and name.strip() and stem_of(name.strip()).strip()
    return name.strip() if known and isinstance(name, str) else None, texts


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=("val", "test"), least_audio=LEAST_AUDIO)
