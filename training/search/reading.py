"""The sound of entries, as the loader reads it and as a model hears it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from training.data.loader import Loader
from training.data.sampling.draws import DrawnSamples
from training.evaluation.encoding import SideEncoder, join, refuse_damaged
from training.models.heads.base import Side
from training.search.entries import Part

BATCH = 32  # windows that are encoded at once


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


def encode_parts(
    encoder: SideEncoder, manifest: Any, entries: pa.Table, parts: list[Part]
) -> Iterator[tuple[Part, Side]]:
    """Each part in turn with the audio sides of its entries; one loader reads for all of them.

    Raises:
        InputError: a clip cannot be read.
    """
    order = EntryOrder(entries, parts, BATCH)
    loader = Loader(manifest, order, encoder.settings, encoder.audio_input, encoder.tokenizer, train=False)
    waiting, sides = iter(parts), []
    part = next(waiting)
    for batch in loader.epoch(0):
        refuse_damaged(batch)
        sides.append(tuple(tensor.detach() for tensor in encoder.audio(batch)))
        if sum(len(side[0]) for side in sides) == len(part):
            yield part, join(sides)
            part, sides = next(waiting, part), []


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
        origin_s=origin,
        clip=nothing,
        caption=nothing,
        group=nothing,
        kin=nothing,
        seeds=nothing,
        labels=[[] for _ in lists["key"]],
    )
