"""The clips and captions of the split that is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharding.common.errors import InputError
from training.data.captions import normalise
from training.data.sampling.mixture import select_rows
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings


@dataclass(frozen=True)
class Split:
    """The clips of a split in their order, and their captions as the model reads them.

    Attributes:
        name: dataset/split.
        clips: clip_ids.
        captions: the captions of the first clip, then those of the second, and so on.
        texts: the captions as they were published.
        clip_of: ``[captions]`` the index in ``clips`` of each caption's clip.
    """

    name: str
    clips: list[str]
    captions: list[str]
    texts: list[str]
    clip_of: npt.NDArray[np.int64]


def read_split(table: pa.Table, name: str, order: SequentialOrder, settings: DataSettings) -> Split:
    """The clips of a split with all captions that were written for them.

    Captions that a clip received from its duplicates do not count.

    Args:
        table: the table of the manifest.
        name: dataset/split.
        order: lists the split's clips.
        settings: say how captions are spelled.

    Raises:
        InputError: a clip has no caption, so that no query could find it.
    """
    clips = clips_of(order)
    wanted = set(clips)
    captions: dict[str, list[tuple[str, str]]] = {}
    rows = table.select(["clip_id", "captions"]).filter(pa.array(select_rows(table, name)))
    for clip, written in zip(rows["clip_id"].to_pylist(), rows["captions"].to_pylist(), strict=True):
        if clip in wanted and clip not in captions:
            own = [each["text"] for each in written if each["source"] is None and each["text"]]
            captions[clip] = [(text, read) for text in own if (read := normalise(text, settings))]
    without = next((clip for clip in clips if not captions[clip]), None)
    if without is not None:
        raise InputError(
            f"a clip of {name} has no caption to be found by",
            value=without,
            remedy="name a split whose clips all have captions with words",
        )
    clip_of = [number for number, clip in enumerate(clips) for _ in captions[clip]]
    pairs = [pair for clip in clips for pair in captions[clip]]
    spelled, published = [read for _, read in pairs], [text for text, _ in pairs]
    return Split(name, clips, spelled, published, np.array(clip_of, np.int64))


def captioned(table: pa.Table) -> pa.Table:
    """The table with one caption for each clip, which is never read: an order lists only clips that have some."""
    captions = [{"text": "a sound", "kind": "human", "onset": None, "offset": None, "source": None}]
    place = table.schema.get_field_index("captions")
    field = table.schema.field(place)
    column = pa.repeat(pa.scalar(captions, field.type), table.num_rows)
    return table.set_column(place, field, column)


def clips_of(order: SequentialOrder) -> list[str]:
    """The clip_ids of an order, in its order."""
    return [clip for step in range(order.steps_per_epoch) for clip in order.batch(0, step).clip_ids]
