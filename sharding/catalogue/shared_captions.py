"""Captions that protected and training clips share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.rows import rows
from sharding.sources.protected import is_protected

SHARED_CAPTIONS = pa.schema(
    [
        ("caption", pa.string()),  # lower case, single spaces, no punctuation
        ("protected", pa.list_(pa.string())),  # clip_ids
        ("training", pa.list_(pa.string())),
    ]
)


class _Split(NamedTuple):
    dataset: str
    split: str


_NOT_WORDS = re.compile(r"[^\w\s]|_")


def plain_caption(text: str) -> str:
    """A caption in lower case, without punctuation, words one space apart."""
    return " ".join(_NOT_WORDS.sub(" ", text.lower()).split())


def shared_captions(catalogue: pa.Table, protect: Collection[tuple[str, str]]) -> pa.Table:
    """SHARED_CAPTIONS: captions that a protected clip and an unprotected one have in common.

    Equal captions do not prove equal sound, so these are reported and decide nothing.
    """
    protected: dict[str, list[str]] = defaultdict(list)
    training: dict[str, list[str]] = defaultdict(list)
    of_protected = pa.array(
        [is_protected(dataset, split, protect) for dataset, split in rows(catalogue, _Split)], pa.bool_()
    )
    captions = catalogue.select(["clip_id", "captions"])
    for text, clip_id in _texts(captions.filter(of_protected)):
        protected[plain_caption(text)].append(clip_id)
    for text, clip_id in _texts(captions.filter(pc.invert(of_protected))):
        if (plain := plain_caption(text)) in protected:
            training[plain].append(clip_id)
    shared = sorted(text for text in training if text)
    return pa.table(
        {
            "caption": shared,
            "protected": [sorted(set(protected[text])) for text in shared],
            "training": [sorted(set(training[text])) for text in shared],
        },
        schema=SHARED_CAPTIONS,
    )


def _texts(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """(text, clip_id) of every caption."""
    for batch in rows.to_batches():
        captions = batch["captions"]
        parents = pc.list_parent_indices(captions)
        texts = pc.struct_field(captions.flatten(), "text")
        yield from zip(texts.to_pylist(), batch["clip_id"].take(parents).to_pylist(), strict=True)
