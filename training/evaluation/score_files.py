"""A score matrix as a folder: every query's score for every clip, with ids, in parts of a bounded size.

scores.json            written last: what was scored, by which model, and the shape of the parts
clips.parquet          ``clip_id``: the columns of the matrix
queries.parquet        ``text`` as published and ``read`` as the model reads it: the rows of the matrix; ``clip`` is the
                       column of the clip whose caption a text is, or null for a query that is no caption
part-000000.safetensors
                       ``scores [rows, clips]`` float32, the next rows of the matrix, and a checksum of them

Parts are safetensors and not Parquet, because Parquet reads lists of numbers about twenty times slower.
"""

from __future__ import annotations

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
from training.evaluation.metrics import Ints
from training.evaluation.scores import Questions

HEAD, STARTED = "scores.json", "started.json"
CLIPS, QUERIES = "clips.parquet", "queries.parquet"
FORMAT = 1
PART_BYTES = 2**26  # of scores
REMEDY = "copy the folder again, or remove it and run `scores` again"


def is_scores(path: str | Path) -> bool:
    """Whether a folder holds finished scores."""
    return Storage(path).exists(HEAD)


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
        """Scores of a folder; ``InputError`` where there are none, or some that are not finished or damaged."""
        storage = Storage(folder)
        if not storage.exists(HEAD):
            begun = storage.exists(STARTED)
            raise InputError(
                "these scores are not finished" if begun else "no scores are here",
                file=folder,
                remedy="run the same `scores` command again, which continues" if begun else "make them with `scores`",
            )
        head = storage.read_json(HEAD)
        if head.get("format") != FORMAT or not isinstance(head.get("rows"), int) or head["rows"] < 1:
            raise InputError("scores of another version, or damaged", file=storage.name(HEAD), remedy=REMEDY)
        clips = storage.read_table(CLIPS)["clip_id"].to_pylist()
        table = storage.read_table(QUERIES)
        clip = table["clip"]
        own = clip.drop_null().to_numpy().astype(np.int64)
        if clip[: len(own)].null_count or (len(own) and not (own.min() >= 0 and own.max() < len(clips))):
            raise InputError("the queries do not fit the clips", file=storage.name(QUERIES), remedy=REMEDY)
        questions = Questions(str(head.get("split")), clips, table["text"].to_pylist(), table["read"].to_pylist(), own)
        return ScoreFile(storage, questions, head)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """The first row of each part, and its scores."""
        for number in range(parts_of(len(self.questions.read), self.head["rows"])):
            first = number * self.head["rows"]
            rows = min(self.head["rows"], len(self.questions.read) - first)
            yield first, read_part(self.storage, number, (rows, len(self.questions.clips)))

    def mapped(self) -> MappedScores:
        """The scores, to be read here and there; ``InputError`` where they are in an object store."""
        if self.storage.local is None:
            raise InputError(
                "scores in an object store cannot be read here and there",
                file=self.storage.name(""),
                remedy="copy the folder to this machine",
            )
        return MappedScores(
            Path(self.storage.local), self.head["rows"], (len(self.questions.read), len(self.questions.clips))
        )


class MappedScores:
    """Scores on this machine, of which only what is asked for is read.

    Raises:
        InputError: a part is missing, or of another size.
    """

    def __init__(self, folder: Path, rows: int, shape: tuple[int, int]) -> None:
        self._rows, self._columns = rows, shape[1]
        self._parts = []
        for number in range(parts_of(shape[0], rows)):
            file = folder / _name(number)
            count = min(rows, shape[0] - number * rows)
            try:
                offset = 8 + int.from_bytes(file.open("rb").read(8), "little")
                if file.stat().st_size != offset + 4 * count * shape[1]:
                    raise ValueError("its size is not what scores.json says")
                self._parts.append(np.memmap(file, np.float32, "r", offset, (count, shape[1])))
            except (OSError, ValueError) as error:
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

    def head(self) -> dict[str, Any]:
        """The contents of scores.json."""
        texts = "\0".join([*self.questions.texts, *self.questions.read, *self.questions.clips])
        return {
            "format": FORMAT,
            **self.identity,
            "split": self.questions.split,
            "clips": len(self.questions.clips),
            "queries": len(self.questions.read),
            "contents": xxhash.xxh3_128_hexdigest(texts.encode("utf-8", "surrogatepass")),
            "rows": self.rows,
        }

    def begin(self) -> bool:
        """Make the folder one of these scores; False where they are finished already.

        Raises:
            InputError: the folder holds other scores, or anything else.
        """
        head = self.head()
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
        """One part, whole or not at all."""
        checksum = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(scores).data)
        self.storage.write(_name(part), save({"scores": scores}, metadata={"xxh3": checksum}))

    def finish(self) -> None:
        """The tables of ids, and last the file that says that all is there."""
        questions = self.questions
        clip = pa.array(
            [*questions.clip_of.tolist(), *[None] * (len(questions.texts) - questions.captions)], pa.int64()
        )
        self.storage.write_table(CLIPS, pa.table({"clip_id": pa.array(questions.clips, pa.string())}))
        texts = {"text": pa.array(questions.texts, pa.string()), "read": pa.array(questions.read, pa.string())}
        self.storage.write_table(QUERIES, pa.table(texts | {"clip": clip}))
        self.storage.write(HEAD, json.dumps(self.head(), indent=1).encode())
        self.storage.remove(STARTED)


def parts_of(queries: int, rows: int) -> int:
    """How many parts so many queries make."""
    return -(-queries // rows)


def read_part(storage: Storage, number: int, shape: tuple[int, int]) -> Block:
    """The scores of a part; ``InputError`` where they are damaged or have another shape."""
    name = _name(number)
    try:
        data = storage.read(name)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        scores: Block = load(data)["scores"]
    except (SafetensorError, ValueError, KeyError, AttributeError, FileNotFoundError) as error:
        raise InputError(f"missing or damaged: {error}", file=storage.name(name), remedy=REMEDY) from error
    if scores.shape != shape or scores.dtype != np.float32:
        raise InputError(
            "the part has another shape than scores.json says",
            file=storage.name(name),
            value=scores.shape,
            remedy=REMEDY,
        )
    if metadata.get("xxh3") != xxhash.xxh3_64_hexdigest(scores.data):
        raise InputError("damaged: its checksum is another", file=storage.name(name), remedy=REMEDY)
    return scores


def _name(number: int) -> str:
    return f"part-{number:06d}.safetensors"
