"""Auto-ACD (Sun et al., 2024): clips of AudioSet and VGGSound with captions that models wrote.

Read in the form in which AuroLA's authors publish its test set: ``train.json``, ``val.json`` and ``test.json``, each a
list of ``{"id": "VGGSound/audio/Ch_RpcvHirQ_000184.flac", "caption": ["..."]}``; a caption may also be one text.  An id
is the file's place below the folder; where there is no such file, the audio is found by its name.  ``val`` and ``test``
are protected.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, json_items
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs, stem_of

NAME = "autoacd"
SPLITS = ("train", "val", "test")
LICENCE = "Auto-ACD's captions; parts of YouTube videos"
LEAST_AUDIO = 0.7  # videos disappear
_SEGMENT = re.compile(r"([\w-]{11})(?:_(\d{6}))?")


def read(root: Storage) -> DatasetTables:
    """Every item of every list, with its captions."""
    tree = Tree(root)
    paths = {split: tree.one(f"{split}.json") for split in SPLITS}
    if not any(paths.values()):
        remedy = "put test.json (datasets/annotations/autoacd of github.com/Jazzcharles/AuroLA) into it"
        raise InputError("no train.json, val.json or test.json in it", file=root.url, remedy=remedy)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for split, path in paths.items():
        if path is not None:
            _add_all(tree, rows, index, split, path)
    notes = [f"{split}.json is absent" for split, path in paths.items() if path is None]
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def _add_all(tree: Tree, rows: CatalogueBuilder, index: AudioIndex, split: str, path: str) -> None:
    file = tree.name(path)
    for number, item in json_items(io.BytesIO(tree.read(path)), file):
        name, texts = _parse(item)
        if name is None or texts is None:
            what = 'not an item of "id" (a text) and "caption" (a text, or a list of texts)'
            raise InputError(what, file=file, row=number, value=str(item)[:80], remedy=FETCH_AGAIN)
        stem, outside = stem_of(name), climbs(name)
        if rows.clip_id(split, stem) in rows:
            raise InputError("two items name one clip", file=file, row=number, value=name[:80], remedy=FETCH_AGAIN)
        segment = _SEGMENT.fullmatch(stem)
        start = None if segment is None or segment[2] is None else float(segment[2])
        rows.add(
            split,
            stem,
            path=None if outside else tree.find(name) or index.one(stem),
            out_of_root=outside,
            captions=[PublishedCaption(text, "machine") for text in dict.fromkeys(texts)],
            identity=None if segment is None else youtube(segment[1], start),
            interval=None if start is None else (start, None),
            licence=LICENCE,
        )


def _parse(item: Any) -> tuple[str | None, list[str] | None]:
    """The id and the captions of an item; None where there is none."""
    if not isinstance(item, Mapping):
        return None, None
    name, texts = item.get("id"), item.get("caption")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        texts = None
    known = isinstance(name, str) and name.strip() and stem_of(name.strip()).strip()
    return name.strip() if known and isinstance(name, str) else None, texts


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=("val", "test"), least_audio=LEAST_AUDIO)
