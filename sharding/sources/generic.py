"""A user's own sounds: a folder with ``clips.csv`` or ``clips.jsonl``, or a folder of sounds without a table.

Columns: ``path`` (below the folder), ``captions`` (one text, or a JSON list) or ``caption_1 ... caption_n``,
and optionally ``onset``, ``offset`` (the part of the file, in seconds, that the captions of the row describe),
``identity``, ``split``, ``licence``, ``start_s``, ``end_s`` (of the original), ``kind`` (of the captions: human,
machine or label; default human), ``title``, ``uploader``, ``keywords`` (``;``-separated).

Without a table, every sound file is a clip, and the words of its path are its caption, a label.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import check_encodable, csv_rows, keywords, seconds
from sharding.schema import sample_key
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption
from sharding.sources.identities import normalised_identity, original_of
from sharding.sources.splitting import random_splits, remark
from sharding.sources.tree import Tree, climbs

_Interval = tuple[float, float | None] | None  # start and end of a clip in its original, in seconds

KINDS = ("human", "machine", "label")
_NUMBERED = re.compile(r"caption_([0-9]{1,6})")
_LONGEST_SPLIT = 120  # characters as the names of shards spell it: file systems allow 255 in all


@dataclass(frozen=True)
class _Row:
    file: str
    number: int
    cells: dict[str, Any]

    def error(self, what: str, value: object, remedy: str) -> InputError:
        return InputError(what, file=self.file, row=self.number, value=value, remedy=remedy)

    def text(self, column: str) -> str:
        value = self.cells.get(column)
        return "" if value is None else str(value).strip()

    def number_of(self, column: str) -> float | None:
        """Seconds, or None if the cell is empty."""
        text = self.text(column)
        value = seconds(text) if text else None
        if text and (value is None or value < 0):
            raise self.error(f"{column} is not a number of seconds", text, "write seconds, such as 12.5")
        return value

    @property
    def path(self) -> str:
        return str(self.cells["path"])

    @property
    def split(self) -> str:
        split = self.text("split") or "all"
        if "/" in split or "," in split:
            raise self.error("a split's name holds '/' or ','", split, "use a plain word")
        if len(sample_key(split)) > _LONGEST_SPLIT:
            raise self.error("a split's name is too long for the names of its shards", split[:80], "shorten it")
        return split


def read(root: Storage, name: str, split_seed: int | None = None) -> DatasetTables:
    """Every clip of the table, as dataset ``name``.

    With ``split_seed``, a table without splits is split at random (``sharding.sources.splitting``).
    """
    tree = Tree(root)
    table_rows, remarks = _rows(tree), []
    if not tree.file_set & {"clips.csv", "clips.jsonl"}:
        remarks.append("it has no table: the caption of a sound is the words of its path")
        if tree.misnamed:
            names = f"{len(tree.misnamed)}, such as {min(tree.misnamed)}"
            remarks.append(f"files whose names are not UTF-8 were left out: {names}; rename them")
    if split_seed is not None:
        table_rows, said = _split(table_rows, split_seed)
        remarks.append(said)
    rows = CatalogueBuilder(name, tree.outside)
    stems = _stems(table_rows)
    identities: dict[str, str | None] = {}
    intervals: dict[str, _Interval] = {}
    for row in table_rows:
        stem = stems[row.split, posixpath.normpath(row.path)]
        clip_id, identity, interval = rows.clip_id(row.split, stem), _identity(row), _interval(row)
        if clip_id in rows:
            if identity is not None and identity != identities[clip_id]:
                raise row.error("several rows name different sources for this file", identity, "leave one of them")
            if interval is not None and interval != intervals[clip_id]:
                raise row.error(
                    "several rows give this file different values of start_s and end_s",
                    row.path,
                    "start_s and end_s cut nothing: give each part a file of its own, or say by onset and offset where "
                    "each caption is true",
                )
            rows.merge(clip_id, _captions(row), "several rows of the table name it")
            continue
        identities[clip_id], intervals[clip_id] = identity, interval
        _add(rows, row, identity, interval, stem, tree)
    notes = [*tree.advice, *_misspelt(table_rows, tree)] if len(rows.used_paths()) < len(rows) else []
    orphans = tree.orphans(name, rows.used_paths())
    return DatasetTables(rows.table(), orphans, (*remarks, *notes))


def _misspelt(table_rows: list[_Row], tree: Tree) -> list[str]:
    """A remark about paths that name no file, but differ from a file only in capitals or in the kind of slash."""
    files = {unicodedata.normalize("NFC", path).casefold(): path for path in tree.files}
    near: dict[str, str] = {}
    for path in dict.fromkeys(row.path for row in table_rows):
        plain = posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/")).casefold()
        if plain in files and tree.find(posixpath.normpath(path)) is None and not climbs(path):
            near[path] = files[plain]
    if not near:
        return []
    path, file = next(iter(near.items()))
    return [
        f"paths that name no file, but would with other capitals or slashes: {len(near)}, such as {path} "
        f"(the file is {file}); correct the table"
    ]


def row_of_times(root: Storage, path: str, onset: float, offset: float) -> tuple[str, int | None]:
    """The table of a folder, and the row of it that gives captions of ``path`` these times; None: no row does."""
    tree, file = Tree(root), root.url
    for row in _rows(tree):
        file = row.file
        if _times(row) == (onset, offset) and tree.find(posixpath.normpath(row.path)) == path:
            return file, row.number
    return file, None


def _split(table_rows: list[_Row], seed: int) -> tuple[list[_Row], str]:
    """The rows, with a random split for each if no row has one; and a remark about this."""
    if any(row.text("split") for row in table_rows):
        return table_rows, "it has splits of its own, which --split-by leaves as they are"
    originals: dict[str, str] = {}
    for row in table_rows:
        path, identity = posixpath.normpath(row.path), _identity(row)
        if identity is not None or path not in originals:
            originals[path] = path if identity is None else original_of(identity)
    splits = random_splits(originals, seed)
    found = [replace(row, cells={**row.cells, "split": splits[posixpath.normpath(row.path)]}) for row in table_rows]
    return found, remark(splits)


def _rows(tree: Tree) -> list[_Row]:
    here = [name for name in ("clips.csv", "clips.jsonl") if name in tree.file_set]
    if not here and tree.audio:
        return [_Row(tree.name(path), 0, {"path": path, **_named_by(path)}) for path in tree.audio]
    if len(here) != 1:
        what = "the folder holds both clips.csv and clips.jsonl"
        remedy = (
            "leave one table in the folder" if here else "put sounds into the folder, with or without a table of them"
        )
        raise InputError(
            what if here else "the folder holds neither clips.csv nor clips.jsonl nor a sound",
            file=tree.root.url,
            remedy=remedy,
        )
    file, text = tree.name(here[0]), tree.text(here[0])
    if here[0] == "clips.csv":
        found = [_Row(file, number, cells) for number, cells in csv_rows(text, file, ("path",))]
    else:
        found = _json_lines(text, file)
    if not found:
        raise InputError(
            "the table has no rows", file=file, remedy="add a row for each sound, or leave the dataset out"
        )
    for row in found:
        if not row.text("path"):
            raise row.error("no path", None, "give each clip the path of its audio below the folder")
        if not any(column in ("captions", "caption") or _NUMBERED.fullmatch(column) for column in row.cells):
            raise row.error("no captions", None, "add captions, or caption_1 ... caption_n")
    return found


def _named_by(path: str) -> dict[str, Any]:
    """The caption of a file without one: the words of its path below the folder, or its name if there are none.

    One letter is no word, but one sign of a script without upper and lower case is (犬, a dog).  The words of a folder
    with which the next name begins are said once: ``dog/Dog 1.wav`` is a dog.
    """
    text = unicodedata.normalize("NFC", posixpath.splitext(path)[0].replace(".zip!", "")).lower()
    letters = "".join(sign if unicodedata.category(sign)[0] in "LM" or sign == "/" else " " for sign in text)
    words: list[str] = []
    folder: list[str] = []
    for name in letters.split("/"):
        own = [word for word in name.split() if len(word) > 1 or unicodedata.category(word) == "Lo"]
        if own[: len(folder)] == folder:
            del words[len(words) - len(folder) :]
        words, folder = words + own, own
    return {"captions": [" ".join(words) or _name(path)], "kind": "label"}


def _json_lines(text: str, file: str) -> list[_Row]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"not a JSON object ({error})",
                file=file,
                row=number,
                value=line[:80],
                remedy="write one JSON object in each line",
            ) from error
        if not isinstance(cells, dict):
            raise InputError(
                "not a JSON object", file=file, row=number, value=line[:80], remedy="write one JSON object in each line"
            )
        check_encodable(cells, file, number)
        found.append(_Row(file, number, cells))
    return found


def _stems(rows: list[_Row]) -> dict[tuple[str, str], str]:
    """A stem for each (split, path): the file's name without suffix, or more of the path where two files share it."""
    paths = list(dict.fromkeys((row.split, posixpath.normpath(row.path)) for row in rows))
    stems: dict[tuple[str, str], str] = {}
    whole = set(paths)
    for shorten in (_name, lambda path: posixpath.splitext(path)[0], lambda path: path):
        counts = Counter((split, shorten(path)) for split, path in paths)
        for split, path in paths:
            stem = shorten(path)
            free = stem == path or (split, stem) not in whole  # x.wav.flac must not become x.wav if x.wav exists too
            if (split, path) not in stems and free and counts[split, stem] == 1:
                stems[split, path] = stem
    return stems


def _name(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _captions(row: _Row) -> list[PublishedCaption]:
    kind = row.text("kind") or "human"
    if kind not in KINDS:
        raise row.error("kind is none of human, machine, label", kind, "use one of the three")
    value = row.cells.get("captions") or row.cells.get("caption")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise row.error(
                f"captions begin like a JSON list but are none ({error})",
                value[:80],
                'write ["one", "two"], also where one caption begins with a bracket: ["[music] a song"]',
            ) from error
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise row.error("captions are not texts", str(value)[:80], "write a text, or a JSON list of texts")
    numbered = sorted((int(found[1]), column) for column in row.cells if (found := _NUMBERED.fullmatch(column)))
    texts = texts + [str(row.cells[column] or "") for _, column in numbered]
    times = _times(row)
    return [PublishedCaption(text, kind, *times) for text in texts if text.strip()]


def _times(row: _Row) -> tuple[float, float] | tuple[None, None]:
    """The part of the file, in seconds, that the captions of a row describe; None, None: all of it."""
    onset, offset = row.number_of("onset"), row.number_of("offset")
    if onset is None and offset is None:
        return None, None
    if onset is None or offset is None:
        lacks = "onset" if onset is None else "offset"
        raise row.error(
            f"a caption with a time has no {lacks}",
            row.path,
            "give both times, or neither if the caption describes the whole file",
        )
    if offset <= onset:
        raise row.error("offset is not after onset", f"{onset:g} to {offset:g}", "give seconds of the file in order")
    return onset, offset


def _identity(row: _Row) -> str | None:
    try:
        return normalised_identity(row.text("identity"))
    except ValueError as error:
        raise row.error(
            "the identity names no source", row.text("identity"), "write freesound:117790, youtube:ID@30 or the like"
        ) from error


def _interval(row: _Row) -> _Interval:
    start, end = row.number_of("start_s"), row.number_of("end_s")
    if start is not None and end is not None and end <= start:
        raise row.error("end_s is not after start_s", f"{start:g} to {end:g}", "give seconds of the original in order")
    return None if start is None and end is None else (start or 0.0, end)


def _add(rows: CatalogueBuilder, row: _Row, identity: str | None, interval: _Interval, stem: str, tree: Tree) -> None:
    captions = _captions(row)
    words = row.cells.get("keywords")
    rows.add(
        row.split,
        stem,
        path=tree.find(posixpath.normpath(row.path)),
        out_of_root=climbs(row.path),
        captions=captions,
        identity=identity,
        interval=interval,
        licence=row.text("licence") or row.text("license"),
        uploader=row.text("uploader"),
        title=row.text("title"),
        keywords=[str(word) for word in words] if isinstance(words, list) else keywords(str(words or "")),
        notes=[] if captions else ["no captions in the table"],
    )
