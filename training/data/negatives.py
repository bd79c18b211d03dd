"""Captions that are wrong for a clip: mined ones, or any of other clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import located
from sharding.schema import stable_id
from training.data.captions import normalise
from training.data.sampling.hashing import hash64, integers_below
from training.data.sampling.mixture import select_rows
from training.data.settings import DataSettings

NEGATIVES = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
NEGATIVE = 0x4E454741  # purpose of a hash: the wrong caption of a sample
TRIES = 16  # to draw a caption of a clip that is not akin


@dataclass(frozen=True)
class Negatives:
    """Wrong captions of clips.

    Attributes:
        mined: what `mine` found for each clip, by its stable id; clips that are not here get captions of other clips.
        texts, group, kin: every caption of the training clips, with the ids of its clip.
    """

    mined: dict[int, list[str]]
    texts: list[str]
    group: np.ndarray[Any, np.dtype[np.int64]]
    kin: np.ndarray[Any, np.dtype[np.int64]]

    @staticmethod
    def of(table: pa.Table, settings: DataSettings, file: str | None) -> Negatives:
        """The wrong captions that training may draw.

        Args:
            table: the manifest.
            settings: the recipe's data section.
            file: NEGATIVES, as `mine` writes them; None: there are none.
        """
        mined = {} if file is None else _read(file, settings)
        texts: list[str] = []
        ids: list[tuple[int, int]] = []
        for item in settings.train:
            rows = table.filter(pa.array(select_rows(table, item.split)))
            for row in rows.select(["clip_id", "captions", "group", "kin"]).to_pylist():
                group = stable_id(row["group"] or row["clip_id"])
                kin = stable_id(row["kin"] or row["group"] or row["clip_id"])
                own = [normalise(each["text"], settings) for each in row["captions"] if each["kind"] in item.captions]
                texts += own
                ids += [(group, kin)] * len(own)
        pairs = np.array(ids, dtype=np.int64).reshape(-1, 2)
        return Negatives(mined, texts, pairs[:, 0], pairs[:, 1])

    def draw(self, clip: int, group: int, kin: int, text: str, seed: int) -> str | None:
        """A wrong caption of a clip, as the model reads it, by the seed of its sample; None: none was found."""
        mined = self.mined.get(clip, ())
        if mined:
            return mined[_below(seed, 0, len(mined))]
        for number in range(TRIES if self.texts else 0):
            row = _below(seed, number, len(self.texts))
            if self.group[row] != group and self.kin[row] != kin and self.texts[row] not in ("", text):
                return self.texts[row]
        return None


def _below(seed: int, number: int, count: int) -> int:
    return int(integers_below(hash64(NEGATIVE, np.array([seed], np.int64), number), count)[0])


def _read(file: str, settings: DataSettings) -> dict[int, list[str]]:
    storage, name = located(file)
    table = storage.read_table(name)
    missing = [each for each in ("clip_id", "texts") if each not in table.column_names]
    if missing:
        raise InputError("not a table of hard negatives: a column is missing", file=file, value=missing[0])
    rows: Sequence[dict[str, Any]] = table.select(["clip_id", "texts"]).to_pylist()
    found = {}
    for row in rows:
        texts = [text for each in row["texts"] or () if (text := normalise(each, settings))]
        found[stable_id(row["clip_id"])] = texts
    return found
