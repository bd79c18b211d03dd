"""Cutting clips that share sound with protected clips: what is left of their windows is encoded anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from sharding.audio import AudioForm, Decoded, Source, decode, encode, mix, quantise
from sharding.audio.resample import Resampler
from sharding.common.storage import Storage
from sharding.fates.trimming import WindowPart
from sharding.layout import pack_name, trimmed_name
from sharding.probe.packs import read_window
from sharding.rows import FactsRow, Window, rows, to_table
from sharding.schema import FACTS


def trim_batch(
    batch: str, facts: pa.Table, stretches: Mapping[str, Sequence[WindowPart]], build: Storage, form: AudioForm
) -> int:
    """Cut the clips of a batch; their bytes depend only on the windows and the parts.

    Writes ``packs/<batch>.pack`` with what had to be cut and, last, ``trimmed_name(batch)``: FACTS whose windows,
    numbered anew, are what is left.  A window of which nothing is cut off stays in the pack that holds it.

    Args:
        batch: names the files.
        facts: FACTS of the clips.
        stretches: the parts of each clip.
        build: the storage of ``OUT/.build``.
        form: the form of the sound in shards.

    Returns:
        the number of clips.
    """
    pack = f"{batch}.pack"
    trimmed = []
    with build.writer(pack_name(pack)) as file:
        for row in rows(facts, FactsRow):
            parts = stretches[row.clip_id]
            windows = [_trim_window(row, number, part, build, form, file, pack) for number, part in enumerate(parts)]
            trimmed.append(row._replace(windows=windows, copied=False, ext=form.window_codec))
    build.write_table(trimmed_name(batch), to_table(trimmed, FACTS))
    return len(trimmed)


def _trim_window(
    facts: FactsRow, number: int, part: WindowPart, build: Storage, form: AudioForm, file: BinaryIO, pack: str
) -> Window:
    """A part of one of the clip's windows as the window of that ``number``; written to ``file`` if it had to be cut."""
    window = facts.windows[part.window]
    if part.whole:
        return {**window, "window": number}
    sound = _cut(read_window(build, facts.clip_id, window, pack_name(window["pack"])), window, part, form)
    encoded, offset = encode(sound, form), file.tell()
    file.write(encoded)
    return Window(
        window=number,
        start_s=part.start_s,
        duration_s=len(sound) / form.rate,
        pack=pack,
        offset=offset,
        bytes=len(encoded),
        sha256=hashlib.sha256(encoded).hexdigest(),
    )


def _cut(data: bytes, window: Window, part: WindowPart, form: AudioForm) -> np.ndarray:
    """int16 ``[n, channels]`` of a part of a window, in the form of shards."""
    decoded = Decoded()
    resampler: Resampler | None = None
    blocks: list[np.ndarray] = []
    for block in decode(Source(data, len(data)), decoded):
        if resampler is None:
            resampler = Resampler(decoded.rate, form.rate, form.channels)
        blocks.append(resampler.push(mix(block, form.channels)))
    if resampler is not None:
        blocks.append(resampler.finish())
    first = round((part.start_s - window["start_s"]) * form.rate)
    return quantise(np.concatenate(blocks)[first : first + round(part.duration_s * form.rate)])
