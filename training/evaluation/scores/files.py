"""A score matrix as a folder: every query's score for every clip, with ids, in parts of a bounded size.

scores.json            written last: what was scored, by which model, and the shape of the parts; ``direction``
                       where the scores are of one direction alone
clips.parquet          ``clip_id``: the columns of the matrix
queries.parquet        ``text`` as published and ``read`` as the model reads it: the rows of the matrix; ``clip`` is the
                       column of the clip whose caption a text is, or null for a query that is no caption
part-000000.safetensors
                       ``scores [rows, clips]`` float32, the next rows of the matrix, a checksum of them, and the
                       place to which they belong, so that the parts of two folders are never mixed

scores.json has a checksum of both tables.  Parts are safetensors and not Parquet, because Parquet reads lists of
numbers about twenty times slower.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.evaluation.counting import Block
from training.evaluation.figures import BACKWARD, FORWARD, Questions
from training.evaluation.metrics import Ints

HEAD, STARTED = "scores.json", "started.json"
CLIPS, QUERIES = "clips.parquet", "queries.parquet"
FORMAT = 2
PART_BYTES = 2**26  # of scores
REMEDY = "copy the folder again, or remove it and run `scores` again"
_CLIPS = pa.schema([pa.field("clip_id", pa.string(), nullable=False)])
_QUERIES = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("read", pa.string(), nullable=False),
        pa.field("clip", pa.int64()),
    ]
)


def is_scores(path: str | Path, unfinished: bool = False) -> bool:
    """Whether a folder holds finished scores; with ``unfinished`` also those whose writer was killed."""
    storage = Storage(path)
    return storage.exists(HEAD) or (unfinished and storage.exists(STARTED) and "queries" in storage.read_json(STARTED))


@dataclass(frozen=True)
class ScoreFile:
    """Finished scores; ``ScoreFile.open(folder)``.

    Attributes:
        storage: the folder.
        questions: the rows and columns.
        head: what scores.json says: ``model``, ``fingerprint``, ``build``, ``rows`` of a part.
    """

    storage: Storage
    questions: Questions
    head: dict[str, Any]

    @staticmethod
    def open(folder: str | Path) -> ScoreFile:
        """Scores of a folder; ``InputError`` if there are none, or some that are not finished or damaged."""
        storage = Storage(folder)
        if not storage.exists(HEAD):
            begun = storage.exists(STARTED)
            raise InputError(
                "these scores are not finished" if begun else "no scores are here",
                file=folder,
                remedy="run the same `scores` command again, which continues" if begun else "make them with `scores`",
            )
        try:
            head = storage.read_json(HEAD)
        except InputError as error:
            raise InputError(error.what, file=storage.name(HEAD), remedy=REMEDY) from error
        if head.get("format") != FORMAT or not isinstance(head.get("rows"), int) or head["rows"] < 1:
            raise InputError("scores of another version, or damaged", file=storage.name(HEAD), remedy=REMEDY)
        clips = _table(storage, CLIPS, _CLIPS)["clip_id"].to_pylist()
        table = _table(storage, QUERIES, _QUERIES)
        clip = table["clip"]
        own = clip.drop_null().to_numpy().astype(np.int64)
        if clip[: len(own)].null_count or (len(own) and not (own.min() >= 0 and own.max() < len(clips))):
            raise InputError("the queries do not fit the clips", file=storage.name(QUERIES), remedy=REMEDY)
        if head.get("direction") not in (None, FORWARD, BACKWARD):
            raise InputError("scores of an unknown direction", file=storage.name(HEAD), remedy=REMEDY)
        texts, read = table["text"].to_pylist(), table["read"].to_pylist()
        questions = Questions(str(head.get("split")), clips, texts, read, own, head.get("direction"))
        if head.get("contents") != contents(questions):
            what = f"{CLIPS} and {QUERIES} are not the tables with which these scores were written"
            raise InputError(what, file=storage.name(HEAD), remedy=REMEDY)
        return ScoreFile(storage, questions, head)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """The first row of each part, and its scores."""
        for number in range(parts_of(len(self.questions.read), self.head["rows"])):
            first = number * self.head["rows"]
            rows = min(self.head["rows"], len(self.questions.read) - first)
            yield first, read_part(self.storage, number, (rows, len(self.questions.clips)), place(self.head, number))

    def mapped(self) -> MappedScores:
        """The scores for random access; ``InputError`` if they are in an object store."""
        if self.storage.local is None:
            raise InputError(
                "single scores cannot be read from an object store",
                file=self.storage.name(""),
                remedy="copy the folder to this machine",
            )
        return MappedScores(Path(self.storage.local), self.head, (len(self.questions.read), len(self.questions.clips)))


class MappedScores:
    """Scores on this machine; only the parts that are asked for are read.

    Raises:
        InputError: a part is missing, of another size, or of other scores.
    """

    def __init__(self, folder: Path, head: dict[str, Any], shape: tuple[int, int]) -> None:
        rows = self._rows = head["rows"]
        self._parts = []
        for number in range(parts_of(shape[0], rows)):
            file = folder / _name(number)
            count = min(rows, shape[0] - number * rows)
            try:
                with file.open("rb") as opened:
                    offset = 8 + int.from_bytes(opened.read(8), "little")
                    if file.stat().st_size != offset + 4 * count * shape[1]:
                        raise ValueError("its size is not what scores.json says")
                    metadata = json.loads(opened.read(offset - 8))["__metadata__"]
                if metadata["xxh3"].partition(" of ")[2] != place(head, number):
                    raise ValueError("it belongs to other scores")
                self._parts.append(np.memmap(file, np.float32, "r", offset, (count, shape[1])))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise InputError(f"missing or damaged: {error}", file=file, remedy=REMEDY) from error

    def crossings(self, rows: Ints, columns: Ints) -> Block:
        """The scores ``[rows, columns]``."""
        found = np.empty((len(rows), len(columns)), np.float32)
        for place, row in enumerate(rows.tolist()):
            found[place] = self._parts[row // self._rows][row % self._rows][columns]
        return found


@dataclass(frozen=True)
class ScoreWriter:
    """Writes scores; what a killed writer of the same scores has finished is kept.

    Attributes:
        storage: the folder.
        questions: the rows and columns.
        identity: what makes these scores what they are: ``model``, ``fingerprint``, ``build``.
        batch: captions that are encoded at once; a part has whole batches, so that rounding does not depend on parts.
    """

    storage: Storage
    questions: Questions
    identity: dict[str, Any]
    batch: int = 1

    @property
    def rows(self) -> int:
        """Rows of a part."""
        rows = PART_BYTES // (4 * max(1, len(self.questions.clips)))
        return max(1, rows // self.batch) * self.batch

    @property
    def parts(self) -> int:
        """How many parts the scores have."""
        return parts_of(len(self.questions.read), self.rows)

    @functools.cached_property
    def head(self) -> dict[str, Any]:
        """The contents of scores.json."""
        return {
            "format": FORMAT,
            **self.identity,
            "split": self.questions.split,
            "clips": len(self.questions.clips),
            "queries": len(self.questions.read),
            "contents": contents(self.questions),
            "rows": self.rows,
        } | ({"direction": self.questions.direction} if self.questions.direction else {})

    def begin(self) -> bool:
        """Mark the folder as that of these scores; False if they are finished already.

        Raises:
            InputError: the folder holds other scores, or anything else.
        """
        head = self.head
        for name in (HEAD, STARTED):
            if not self.storage.exists(name):
                continue
            known = self.storage.read_json(name)
            changed = sorted(key for key in known | head if known.get(key) != head.get(key))
            if changed:
                raise InputError(
                    "the folder holds other scores: " + ", ".join(changed) + " differ",
                    file=self.storage.name(name),
                    remedy="name another folder for --out, or remove this one",
                )
            return name == STARTED
        if self.storage.list():
            raise InputError(
                "the folder holds something else",
                file=self.storage.name(""),
                remedy="name a new folder for --out",
            )
        self.storage.write(STARTED, json.dumps(head, indent=1).encode())
        return True

    def missing(self) -> list[int]:
        """The parts that are not written yet."""
        there = set(self.storage.list())
        return [number for number in range(self.parts) if _name(number) not in there]

    def rows_of(self, part: int) -> slice:
        """The rows of a part."""
        return slice(part * self.rows, min((part + 1) * self.rows, len(self.questions.read)))

    def write(self, part: int, scores: Block) -> None:
        """Write one part, whole or not at all."""
        checksum = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(scores).data)
        metadata = {"xxh3": f"{checksum} of {place(self.head, part)}"}  # in one entry: several come in any order
        self.storage.write(_name(part), save({"scores": scores}, metadata=metadata))

    def finish(self) -> None:
        """Write the tables of ids, and last scores.json, which says that the scores are finished."""
        questions = self.questions
        clip = pa.array(
            [*questions.clip_of.tolist(), *[None] * (len(questions.texts) - questions.captions)], pa.int64()
        )
        self.storage.write_table(CLIPS, pa.table({"clip_id": pa.array(questions.clips, pa.string())}))
        texts = {"text": pa.array(questions.texts, pa.string()), "read": pa.array(questions.read, pa.string())}
        self.storage.write_table(QUERIES, pa.table(texts | {"clip": clip}))
        self.storage.write(HEAD, json.dumps(self.head, indent=1).encode())
        self.storage.remove(STARTED)


def contents(questions: Questions) -> str:
    """A checksum of the rows and columns of scores, and of which clip each caption belongs to."""
    tables = [questions.split, questions.clips, questions.texts, questions.read, questions.clip_of.tolist()]
    return xxhash.xxh3_128_hexdigest(json.dumps(tables).encode())


def place(head: dict[str, Any], part: int) -> str:
    """The identity of the scores and the position to which a part belongs."""
    return f"{head.get('fingerprint')} {head['contents']} {part}"


def _table(storage: Storage, name: str, schema: pa.Schema) -> pa.Table:
    """A table of the folder with the columns that it must have."""
    try:
        return storage.read_table(name).select(schema.names).cast(schema)
    except (InputError, OSError, LookupError, ValueError, pa.ArrowException) as error:
        what = error.what if isinstance(error, InputError) else f"missing or damaged: {error}"
        raise InputError(what, file=storage.name(name), remedy=REMEDY) from error


def parts_of(queries: int, rows: int) -> int:
    """The number of parts for a number of queries."""
    return -(-queries // rows)


def read_part(storage: Storage, number: int, shape: tuple[int, int], belongs: str) -> Block:
    """The scores of a part; ``InputError`` if they are damaged, have another shape, or another `place`."""
    name = _name(number)
    try:
        data = storage.read(name)
        length = int.from_bytes(data[:8], "little")
        checksum, _, written = json.loads(data[8 : 8 + length])["__metadata__"]["xxh3"].partition(" of ")
        scores: Block = load(data)["scores"]
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, FileNotFoundError) as error:
        raise InputError(f"missing or damaged: {error}", file=storage.name(name), remedy=REMEDY) from error
    if scores.shape != shape or scores.dtype != np.float32:
        raise InputError(
            "the part has another shape than scores.json says",
            file=storage.name(name),
            value=scores.shape,
            remedy=REMEDY,
        )
    if checksum != xxhash.xxh3_64_hexdigest(scores.data):
        raise InputError("damaged: its checksum is another", file=storage.name(name), remedy=REMEDY)
    if written != belongs:
        raise InputError("the part belongs to other scores", file=storage.name(name), remedy=REMEDY)
    return scores


def _name(number: int) -> str:
    return f"part-{number:06d}.safetensors"
