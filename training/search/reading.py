"""The sound of entries, as the loader reads it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from training.data.sampling import DrawnSamples
from training.search.entries import Part


class EntryOrder:
    """Batches of the entries of parts, in the form that ``training.data.loader.Loader`` asks for.

    No batch holds entries of two parts.
    """

    def __init__(self, entries: pa.Table, parts: list[Part], batch_size: int) -> None:
        self._entries = entries
        self._bounds = [
            (begin, min(begin + batch_size, part.end))
            for part in parts
            for begin in range(part.begin, part.end, batch_size)
        ]
        self.steps_per_epoch = len(self._bounds)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The entries of a batch as samples whose crop is the window."""
        begin, end = self._bounds[step]
        return drawn(self._entries.slice(begin, end - begin))

    def sizes(self) -> Iterator[int]:
        """The number of entries of each batch."""
        return (end - begin for begin, end in self._bounds)


def drawn(entries: pa.Table) -> DrawnSamples:
    """Entries as samples that the loader reads; they have no caption and no random numbers."""
    lists = {name: entries[name].to_pylist() for name in entries.column_names}
    start, end, origin = (entries[name].to_numpy() for name in ("start_s", "end_s", "sample_start_s"))
    nothing = np.zeros(len(start), np.int64)
    return DrawnSamples(
        keys=lists["key"],
        clip_ids=lists["clip_id"],
        texts=["a sound"] * len(start),
        shard=lists["shard"],
        audio=lists["audio"],
        sha256=lists["audio_sha256"],
        xxh3=lists["audio_xxh3"],
        offset=entries["audio_offset"].to_numpy(),
        size=entries["audio_bytes"].to_numpy(),
        rate=entries["rate"].to_numpy().astype(np.int64),
        start_s=start - origin,
        duration_s=end - start,
        clip=nothing,
        caption=nothing,
        group=nothing,
        kin=nothing,
        seeds=nothing,
        labels=[[] for _ in lists["key"]],
    )
