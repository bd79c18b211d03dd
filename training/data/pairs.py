"""Sentence pairs as a source of training: tables of sentences that mean the same, with hard negatives.

A table is a CSV file with the columns ``sent0`` (the anchor), ``sent1`` (its match) and, where there is one,
``hard_neg`` (a sentence that looks alike and means something else), as triples of natural language inference are.
Each table counts as a dataset with one split, so that the mixture, the order and its guarantees are those of clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sharding.common.errors import InputError
from sharding.common.tables import csv_rows, decode
from sharding.schema import MANIFEST, stable_id
from training.data.batch import Columns
from training.data.builder import BatchRequest
from training.data.captions import normalise, tokenise
from training.data.loader import BatchLoader, BatchOrder
from training.data.settings import DataSettings

SPLIT = "pairs"  # the split of every table
COLUMNS = ("sent0", "sent1")
NEGATIVE = "hard_neg"


@dataclass(frozen=True)
class SentencePairs:
    """Rows of one or several tables.

    Attributes:
        table: a row of MANIFEST for each pair: what an order draws from; its captions are the anchors.
        dataset: ``plan``: the name of these data, by their contents.
        matches: the match of each row.
        negatives: the hard negative of each row; empty: it has none.
        rows: the row of each key.
    """

    table: pa.Table
    dataset: dict[str, Any]
    matches: list[str]
    negatives: list[str]
    rows: Mapping[str, int]

    @classmethod
    def open(cls, files: Mapping[str, str]) -> Self:
        """Read the tables.

        Args:
            files: the CSV file of each name.

        Raises:
            InputError: a file cannot be read, lacks a column, or has an empty sentence; it names file and row.
        """
        rows: list[dict[str, Any]] = []
        matches, negatives = [], []
        digest = hashlib.sha256()
        for name, file in files.items():
            if not name or "/" in name:
                raise InputError("a table of data.texts needs a name without a slash", value=name)
            for number, (anchor, match, negative) in enumerate(_read(Path(file))):
                digest.update("\x1f".join((name, anchor, match, negative, "")).encode())
                rows.append(_row(name, number, anchor, match))
                matches.append(match)
                negatives.append(negative)
        table = pa.Table.from_pylist(rows, MANIFEST)
        keys = {row["key"]: number for number, row in enumerate(rows)}
        return cls(table, {"plan": digest.hexdigest()[:16]}, matches, negatives, keys)

    def sentences(self) -> list[str]:
        """All different sentences, sorted."""
        anchors = pa.compute.list_flatten(self.table["captions"]).combine_chunks().field("text").to_pylist()
        return sorted({*anchors, *self.matches, *self.negatives} - {""})


def _read(file: Path) -> Iterator[tuple[str, str, str]]:
    """Anchor, match and hard negative of each row of a table, which has at least one."""
    try:
        text = decode(file.read_bytes(), str(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    empty = True
    for number, row in csv_rows(text, str(file), COLUMNS):
        texts = [" ".join(row.get(name, "").split()) for name in (*COLUMNS, NEGATIVE)]
        if not texts[0] or not texts[1]:
            name = COLUMNS[0] if not texts[0] else COLUMNS[1]
            what = f"the sentence {name} is empty"
            raise InputError(what, file=file, row=number, remedy="write it, or remove the row")
        yield texts[0], texts[1], texts[2]
        empty = False
    if empty:
        raise InputError("the table has no pair", file=file, remedy="write one pair in each row below the header")


def _row(name: str, number: int, anchor: str, match: str) -> dict[str, Any]:
    key = f"{name}/{number}"
    caption = {"text": anchor, "kind": "human", "onset": None, "offset": None, "source": None}
    same = f"{name}: {match}"  # pairs of one match are kin: an order keeps them apart
    empty = {"shard": "", "audio": "", "audio_offset": 0, "audio_bytes": 0, "audio_sha256": "", "rate": 1}
    place = {"clip_id": key, "window": 0, "windows": 1, "dataset": name, "split": SPLIT, "start_s": 0.0}
    return {"key": key, "duration_s": 1.0, "captions": [caption], "group": same, "kin": same, **empty, **place}


@dataclass(frozen=True)
class PairBatch(Columns):
    """Sentence pairs.

    ``clip`` is the id of the match and ``caption`` that of the anchor, so equal sentences are positives of each other.

    Attributes:
        tokens, match_tokens, negative_tokens: ``[b, N]`` int64 of anchors, matches and hard negatives, each with its
            mask ``[b, N]`` bool.
        negative: ``[b]`` int64, the id of the hard negative.
        has_negative: ``[b]`` bool.
        texts: the anchors.
    """

    tokens: Tensor
    token_mask: Tensor
    match_tokens: Tensor
    match_mask: Tensor
    negative_tokens: Tensor
    negative_mask: Tensor
    negative: Tensor
    has_negative: Tensor
    texts: list[str]

    def placeholder(self) -> Self:
        """One pair of one token each."""
        empty = super().placeholder()
        for mask in (empty.token_mask, empty.match_mask, empty.negative_mask):
            mask[:, 0] = True
        return empty


@dataclass(frozen=True)
class PairBuilder:
    """Builds batches of sentence pairs in a loader's worker."""

    pairs: SentencePairs
    settings: DataSettings
    tokenizer: Any

    def __getitem__(self, request: BatchRequest) -> PairBatch:
        draws = request.draws
        rows = [self.pairs.rows[key] for key in draws.keys]
        matches = [normalise(self.pairs.matches[row], self.settings) for row in rows]
        negatives = [normalise(self.pairs.negatives[row], self.settings) for row in rows]
        columns: dict[str, Any] = {}
        for prefix, texts in (("token", draws.texts), ("match", matches), ("negative", negatives)):
            tokens, mask = self._tokens(texts)
            columns[f"{prefix}s" if prefix == "token" else f"{prefix}_tokens"] = tokens
            columns[f"{prefix}_mask"] = mask
        ids = torch.from_numpy(_ids(matches))
        return PairBatch(
            **columns,
            clip=ids,
            group=ids,
            kin=ids,
            caption=torch.from_numpy(_ids(draws.texts)),
            negative=torch.from_numpy(_ids(negatives)),
            has_negative=torch.tensor([bool(text) for text in negatives], dtype=torch.bool),
            seeds=torch.from_numpy(draws.seeds.copy()),
            valid=torch.ones(len(rows), dtype=torch.bool),
            keys=draws.keys,
            texts=draws.texts,
            failures=[],
            name_part=draws.name_part,
        )

    def floats_per_clip(self) -> int:
        return 0

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool)
        return tokenise(self.tokenizer, texts, self.settings)


def _ids(texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([stable_id(text) for text in texts], dtype=np.int64)


class PairLoader(BatchLoader):
    """A rank's batches of sentence pairs; arguments as of `training.data.loader.Loader`."""

    def __init__(
        self,
        pairs: SentencePairs,
        order: BatchOrder,
        settings: DataSettings,
        tokenizer: Any,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(order, PairBuilder(pairs, settings, tokenizer), settings, rank, world, device=device)
