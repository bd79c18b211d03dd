"""Whether captions with times lie in their recordings, which is known once these are decoded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.rows import Caption, rows

SLACK_S = 0.1  # a caption may end so much later than its recording, because tables round


class Outside(NamedTuple):
    """A caption whose time is not in its recording; times in seconds."""

    dataset: str
    path: str
    onset: float
    offset: float
    duration_s: float


class _Clip(NamedTuple):
    clip_id: str
    dataset: str
    path: str | None
    captions: list[Caption]


class _Length(NamedTuple):
    clip_id: str
    duration_s: float | None


def captions_outside(catalogue: pa.Table, facts: pa.Table, datasets: Collection[str]) -> Iterator[Outside]:
    """The captions of some datasets that begin or end after their recordings, in the order of the catalogue.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS; what was not decoded has no length, and nothing is said about its captions.
        datasets: whose captions are looked at.
    """
    own = catalogue.filter(pc.is_in(catalogue["dataset"], pa.array(sorted(datasets), pa.string())))
    written = own["captions"].combine_chunks()
    timed = pc.struct_field(pc.list_flatten(written), "onset").is_valid()
    own = own.take(pc.unique(pc.list_parent_indices(written).filter(timed)))
    facts = facts.filter(pc.is_in(facts["clip_id"], own["clip_id"].combine_chunks()))
    lengths = {row.clip_id: row.duration_s for row in rows(facts, _Length)}
    for clip in rows(own, _Clip):
        length = lengths.get(clip.clip_id)
        if length is None or clip.path is None:
            continue
        for caption in clip.captions:
            onset, offset = caption["onset"], caption["offset"]
            if onset is not None and offset is not None and offset > length + SLACK_S:
                yield Outside(clip.dataset, clip.path, onset, offset, length)
