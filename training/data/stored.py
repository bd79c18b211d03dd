"""Vectors that a frozen encoder gave, stored once: for each item a few tensors of any length.

A folder holds parts of `PART` items each, ``000000-<checksum>.safetensors``.  A part is written whole or not at all,
and its name has the checksum of its bytes, so an interrupted computation continues, and a changed byte is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.schema import stable_id
from sharding.shards.checksum import fast_checksum
from training.data.batch import Batch, EncodedBatch

PART = 256  # items
SEGMENTS, PATCHES = "segments", "patches"  # columns of a sample
SENTENCE, WORDS = "sentence", "words"  # columns of a caption
_NAME = re.compile(r"(\d{6})-([0-9a-f]{16})\.safetensors")
LENGTHS = "lengths of "  # before the name of a column: how many rows each item has


def write_part(folder: Path, number: int, items: Sequence[Mapping[str, Tensor]]) -> None:
    """Write a part: the items' tensors ``[n, ...]``, where n differs from item to item, column by column."""
    columns: dict[str, Tensor] = {}
    for name in items[0]:
        columns[LENGTHS + name] = torch.tensor([len(item[name]) for item in items])
        columns[name] = torch.cat([item[name] for item in items]).contiguous()
    data = safetensors.torch.save(columns)
    Storage(folder).write(f"{number:06d}-{fast_checksum(data):016x}.safetensors", data)


def finished_parts(folder: Path) -> dict[int, Path]:
    """The parts that are there and whole; a damaged one is removed, so that it is computed again."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if (name := _NAME.fullmatch(path.name)) is None:
            continue
        if f"{fast_checksum(path.read_bytes()):016x}" == name[2]:
            found[int(name[1])] = path
        else:
            path.unlink()
    return found


class StoredVectors:
    """Reads the tensors of items from a finished folder; only what is asked for is read.

    Args:
        folder: the folder of the parts.
        ids: the 64-bit id of each item, in the order in which the items were stored.
    """

    def __init__(self, folder: Path, ids: NDArray[np.int64]) -> None:
        self.folder = folder
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]
        found = finished_parts(folder)
        wanted = range(-(-len(ids) // PART))
        if missing := [number for number in wanted if number not in found]:
            remedy = "start the same command again: it computes what is missing"
            raise InputError("stored vectors are missing or damaged", file=folder, value=missing[0], remedy=remedy)
        try:
            self._parts = [_Part(found[number]) for number in wanted]
        except (SafetensorError, KeyError) as error:
            remedy = "remove the folder, and start again"
            raise InputError(f"not a file of stored vectors: {error}", file=folder, remedy=remedy) from error

    def batch(self, ids: NDArray[np.int64]) -> dict[str, tuple[Tensor, Tensor]]:
        """The tensors of some items, joined column by column.

        Returns:
            by column ``[b, n, ...]``, padded with zeros to the longest item's n, and the mask ``[b, n]`` of what is not
            padding.

        Raises:
            InputError: an item is not stored.
        """
        items = [self._item(int(number)) for number in ids]
        like = items[0] if items else self._parts[0].item(0)
        return {name: _padded([item[name] for item in items], tensor) for name, tensor in like.items()}

    def _item(self, wanted: int) -> dict[str, Tensor]:
        place = int(np.searchsorted(self._ids, wanted))
        if place == len(self._ids) or self._ids[place] != wanted:
            raise InputError("a sample has no stored vectors", file=self.folder, value=wanted)
        number, row = divmod(int(self._order[place]), PART)
        return self._parts[number].item(row)


class _Part:
    """One file; its tensors are read row by row from mapped memory."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "pt")
        stored = self._file.keys()
        self.names = sorted(name for name in stored if not name.startswith(LENGTHS))
        lengths = {name: self._file.get_tensor(LENGTHS + name).tolist() for name in self.names}
        self._ends = {name: np.cumsum([0, *counts]) for name, counts in lengths.items()}
        self._slices = {name: self._file.get_slice(name) for name in self.names}

    def item(self, row: int) -> dict[str, Tensor]:
        """The tensors of one item by column."""
        return {name: self._slices[name][int(ends[row]) : int(ends[row + 1])] for name, ends in self._ends.items()}


@dataclass(frozen=True)
class Stored:
    """The stored vectors of a run: of samples by `sample_id`, and of captions by `caption_id`; None: there are none.

    ``encoders`` names the encoder of each part, ``audio`` or ``text``, that gave them.
    """

    audio: StoredVectors | None = None
    text: StoredVectors | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)

    def attach(self, batch: Batch) -> Batch:
        """The batch with the stored vectors of its samples; the batch itself where nothing is stored."""
        found: dict[str, Tensor] = {}
        if self.audio is not None:
            columns = self.audio.batch(np.array([sample_id(key) for key in batch.keys], np.int64))
            found["segments"], found["segment_mask"] = columns[SEGMENTS]
            if PATCHES in columns:
                found["patches"], found["patch_mask"] = columns[PATCHES]
        if self.text is not None:
            columns = self.text.batch(np.array([caption_id(text) for text in batch.texts], np.int64))
            found["sentence"] = columns[SENTENCE][0][:, 0]
            if WORDS in columns:
                found["words"], found["word_mask"] = columns[WORDS]
        if not found:
            return batch
        columns_of_batch = {each.name: getattr(batch, each.name) for each in fields(batch)}
        return EncodedBatch(**columns_of_batch | found)


NOTHING = Stored()


def sample_id(key: str) -> int:
    """The number of a sample's vectors."""
    return stable_id(key)


def caption_id(text: str) -> int:
    """The number of the vectors of a caption, as the model reads it."""
    return stable_id(text)


def _padded(tensors: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    longest = max((len(tensor) for tensor in tensors), default=1)
    joined = like.new_zeros(len(tensors), longest, *like.shape[1:])
    mask = torch.zeros(len(tensors), longest, dtype=torch.bool)
    for row, tensor in enumerate(tensors):
        joined[row, : len(tensor)] = tensor
        mask[row, : len(tensor)] = True
    return joined, mask
