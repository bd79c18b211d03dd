"""Batches of similar clips: of one dataset, of one length, or of one neighbourhood of sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sharding.common.errors import InputError
from training.data.sampling.hashing import hash64, signed
from training.data.sampling.mixture import integer_codes
from training.data.settings import ShuffleSettings

Int64 = NDArray[np.int64]
Grouping = Callable[[Int64, int, tuple[int, ...]], Int64]

SPLIT, SKETCH = 0x53504C49, 0x534B4554  # purposes of hashes: the planes between neighbourhoods; the sketch's axes
AXES = 64  # width of the sketch that takes the place of an embedding
MAKE = "`earshot embed MODEL --shards OUT --out FILE` writes the vectors of every clip"
PORTION = 1 << 14  # embeddings that are sketched together


def make_grouping(table: pa.Table, used: Sequence[Int64], settings: ShuffleSettings) -> Grouping:
    """A function that reorders draws so that similar ones follow each other.

    The function takes the manifest rows of the draws in shuffled order ``[n]``, the batch size, and integers
    that seed its random choices.  It returns which draw comes at each position, ``[n]``.

    Args:
        table: MANIFEST rows.
        used: the rows that can be drawn; only these need an embedding.
        settings: which draws are similar.
    """
    if settings.batches == "dataset":
        return _by(integer_codes(table["dataset"]))
    if settings.batches == "length":
        durations = np.asarray(table["duration_s"].to_numpy(), dtype=np.float64)
        return _by(np.round(durations * 4).astype(np.int64))  # quarters of a second
    if settings.batches == "neighbours":
        assert settings.neighbours is not None  # the settings refuse None here
        return _by_neighbourhood(table, np.concatenate(used), Path(settings.neighbours))
    return lambda rows, batch, seeds: np.arange(len(rows))


def _by(labels: Int64) -> Grouping:
    return lambda rows, batch, seeds: np.argsort(labels[rows], kind="stable")


def _by_neighbourhood(table: pa.Table, used: Int64, file: Path) -> Grouping:
    """Halve the draws at the median of a random direction again and again, until each part is one batch."""
    if not file.is_file():
        raise InputError("the file of neighbours is missing", file=file, remedy=MAKE)
    try:
        known = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a Parquet file: {str(error).splitlines()[0]}", file=file, remedy=MAKE) from error
    names = set(known.column_names)
    if not {"clip_id", "embedding"} <= names or not pa.types.is_nested(known["embedding"].type):
        raise InputError(
            "neighbours have the columns clip_id and embedding, a list of numbers",
            file=file,
            value=known.schema.names,
            remedy=MAKE,
        )
    found = pc.index_in(table["clip_id"], value_set=known["clip_id"].combine_chunks())
    embedding_of = np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)
    missing = used[embedding_of[used] < 0]
    if len(missing):
        clip = table["clip_id"][int(missing[0])].as_py()
        raise InputError("a clip has no embedding", file=file, value=clip, remedy=MAKE)
    sketches = _sketch(known["embedding"], file)
    return lambda rows, batch, seeds: _halve(sketches[embedding_of[rows]], np.arange(len(rows)), batch, seeds)


def _sketch(embeddings: pa.ChunkedArray, file: Path) -> NDArray[np.float64]:
    """Embeddings scaled to length one, rounded to 8 bits, and projected on axes of random signs, ``[n, AXES]``.

    The projection is that of Achlioptas 2003 ("Database-friendly random projections").  All numbers are integers
    that float64 holds exactly, so every machine finds the same order.
    """
    widths = pc.unique(pc.list_value_length(embeddings))
    if len(widths) != 1 or not widths[0].as_py():
        raise InputError("embeddings must all have the same width", file=file, value=widths.to_pylist()[:5])
    width = widths[0].as_py()
    axes = np.where(hash64(SKETCH, np.arange(width)[:, None], np.arange(AXES)) >> np.uint64(63), 1.0, -1.0)
    out = np.empty((len(embeddings), AXES))
    for start in range(0, len(embeddings), PORTION):
        flat = embeddings.slice(start, PORTION).combine_chunks().flatten()
        vectors = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1, width)
        if not np.isfinite(vectors).all():
            raise InputError("embeddings must be finite", file=file, value=f"among rows {start} to {start + PORTION}")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        out[start : start + PORTION] = np.round(127 * vectors / np.maximum(norms, 1e-12)) @ axes
    return out


def _halve(vectors: NDArray[np.float64], members: Int64, batch: int, seeds: tuple[int, ...]) -> Int64:
    """``members`` reordered so that the vectors of a batch lie on the same side of random planes."""
    if len(members) <= batch:
        return members
    plane = signed(hash64(SPLIT, *seeds, np.arange(vectors.shape[1]))) >> np.int64(56)  # in [-128, 127]
    order = members[np.argsort(vectors[members] @ plane.astype(np.float64), kind="stable")]
    # Parts are whole batches, so that no batch spans two neighbourhoods.
    half = max(1, -(-len(members) // batch) // 2) * batch
    left = _halve(vectors, order[:half], batch, (*seeds, 0))
    return np.concatenate([left, _halve(vectors, order[half:], batch, (*seeds, 1))])
