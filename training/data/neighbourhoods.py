"""What a batch is drawn from: everything, one dataset, one length, or one neighbourhood of sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sharding.errors import InputError
from training.data.hashing import mix, signed
from training.data.mixture import encode
from training.data.settings import ShuffleSettings

Int64 = NDArray[np.int64]
Arrange = Callable[[Int64, int, tuple[int, ...]], Int64]

SPLIT = 0x53504C49  # purpose of a hash: the planes that part neighbourhoods


def arrange(table: pa.Table, settings: ShuffleSettings) -> Arrange:
    """A function that puts draws that belong together side by side.

    It gets manifest rows in shuffled order ``[n]``, the batch size, and integers that name the place, and
    returns which draw stands at each place ``[n]``.
    """
    if settings.batches == "dataset":
        return _by(encode(table["dataset"]))
    if settings.batches == "length":
        durations = np.asarray(table["duration_s"].to_numpy(), dtype=np.float64)
        return _by(np.round(durations * 4).astype(np.int64))  # quarters of a second
    if settings.batches == "neighbours":
        assert settings.neighbours is not None  # the settings refuse this
        return _by_neighbourhood(table, Path(settings.neighbours))
    return lambda rows, batch, name: np.arange(len(rows))


def _by(labels: Int64) -> Arrange:
    return lambda rows, batch, name: np.argsort(labels[rows], kind="stable")


def _by_neighbourhood(table: pa.Table, file: Path) -> Arrange:
    """Draws halved by random planes through their median until a part fits a batch.

    Embeddings are rounded to small integers first, so that every machine finds the same order.
    """
    if not file.is_file():
        raise InputError("the file of neighbours is missing", file=file, remedy="export a model's clip embeddings")
    known = pq.read_table(file, columns=["clip_id", "embedding"])
    vectors = np.array(known["embedding"].to_pylist(), dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    small = np.round(127 * vectors / np.maximum(norms, 1e-12)).astype(np.int8)
    places = pc.index_in(table["clip_id"], value_set=known["clip_id"].combine_chunks())
    if places.null_count:
        missing = table["clip_id"].filter(pc.is_null(places))[0].as_py()
        raise InputError("a clip has no embedding", file=file, value=missing, remedy="embed every clip of the shards")
    of = np.asarray(places.to_numpy(), dtype=np.int64)
    return lambda rows, batch, name: _halve(small[of[rows]], np.arange(len(rows)), batch, name)


def _halve(vectors: NDArray[np.int8], members: Int64, batch: int, name: tuple[int, ...]) -> Int64:
    if len(members) <= batch:
        return members
    plane = signed(mix(SPLIT, *name, np.arange(vectors.shape[1]))) >> np.int64(56)  # in [-128, 127]
    sides = vectors[members].astype(np.int64) @ plane
    order = members[np.argsort(sides, kind="stable")]
    # Parts are whole batches, so that no batch spans two neighbourhoods.
    half = max(1, -(-len(members) // batch) // 2) * batch
    left = _halve(vectors, order[:half], batch, (*name, 0))
    return np.concatenate([left, _halve(vectors, order[half:], batch, (*name, 1))])
