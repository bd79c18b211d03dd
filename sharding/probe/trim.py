"""The sound of clips that lose a part to protected ones: cut from the windows that the probe left, encoded anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.audio import AudioForm, Decoded, Source, decode, encode, mix, quantise
from sharding.audio.resample import Resampler
from sharding.common.storage import Storage
from sharding.fates.trimming import Part
from sharding.layout import pack_name, trimmed_name
from sharding.schema import FACTS


def trim_batch(
    batch: str, facts: pa.Table, stretches: Mapping[str, Sequence[Part]], build: Storage, form: AudioForm
) -> int:
    """Cut the clips of a batch; their bytes depend on the windows and the parts alone.

    Writes ``packs/<batch>.pack`` with what had to be cut and, last, ``trimmed_name(batch)``: FACTS whose windows,
    numbered anew, are what is left.  A window that is left whole is taken over as it is.

    Args:
        batch: names the files.
        facts: FACTS of the clips.
        stretches: the parts of each clip.
        build: the storage of ``OUT/.build``.
        form: of the sound in shards.

    Returns:
        the number of clips.
    """
    rows = facts.to_pylist()
    pack = f"{batch}.pack"
    with build.writer(pack_name(pack)) as file:
        position = 0
        for row in rows:
            windows = []
            for number, part in enumerate(stretches[row["clip_id"]]):
                window = row["windows"][part.window]
                if part.whole:
                    windows.append({**window, "window": number})
                    continue
                sound = _cut(
                    build.read(pack_name(window["pack"]), window["offset"], window["bytes"]), window, part, form
                )
                data = encode(sound, form)
                file.write(data)
                windows.append(
                    {
                        "window": number,
                        "start_s": part.start_s,
                        "duration_s": len(sound) / form.rate,
                        "pack": pack,
                        "offset": position,
                        "bytes": len(data),
                        "sha256": hashlib.sha256(data).hexdigest(),
                    }
                )
                position += len(data)
            row |= {"windows": windows, "copied": False, "ext": form.window_codec}
    build.write_table(trimmed_name(batch), pa.Table.from_pylist(rows, FACTS))
    return len(rows)


def _cut(data: bytes, window: Mapping[str, Any], part: Part, form: AudioForm) -> np.ndarray:
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
