"""The proof that a converted model computes what Earshot computes: real recordings and captions, and a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import DATASET, shard_name
from sharding.shards.manifest import Manifest

TOLERANCE = 1e-5  # of any number of a vector; vectors have length 1
CLIPS = 8  # recordings that are compared
LONGEST_S = 120.0  # of a recording that is compared
# Captions with what models spell differently: case, punctuation, other scripts, and more words than a model reads.
TEXTS = (
    "a dog barks while rain falls",
    "A Dog BARKS, while rain falls!",
    "  two   spaces; a naïve café - 雨が降る ",
    "wind " * 600,
    "x",
)


@dataclass(frozen=True)
class Recording:
    """One recording: mono float32 ``[samples]``, full scale 1, and its sample rate in Hz."""

    wave: np.ndarray
    rate: int

    def at(self, rate: int) -> np.ndarray:
        """The samples at another rate, resampled as the loader of training does."""
        return self.wave if rate == self.rate else soxr.resample(self.wave, self.rate, rate, quality="HQ")


@dataclass(frozen=True)
class CheckClips:
    """The clips and captions on which a conversion is proved."""

    recordings: list[Recording]
    texts: list[str]


@dataclass
class Proof:
    """The largest differences that were found, by name, and how much was compared."""

    clips: int
    texts: int
    differences: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def compare(self, name: str, found: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> None:
        """Note the largest difference of two arrays of one shape; NaN counts as infinite."""
        a, b = (torch.as_tensor(each).detach().double().cpu() for each in (found, expected))
        if a.shape != b.shape:
            raise InputError(f"{name} have the shape {tuple(a.shape)} instead of {tuple(b.shape)}")
        largest = float((a - b).abs().nan_to_num(nan=torch.inf).max()) if a.numel() else 0.0
        self.differences[name] = max(largest, self.differences.get(name, 0.0))

    def require(self) -> None:
        """``InputError`` if anything differs by more than the tolerance."""
        for name, largest in self.differences.items():
            if largest > TOLERANCE:
                raise InputError(
                    f"the {name} of the converted model differ from Earshot's by {largest:.2g}, and at most "
                    f"{TOLERANCE:g} is allowed; nothing was written"
                )


def read_clips(path: str) -> CheckClips:
    """Recordings and captions to compare on.

    Args:
        path: a sound file, a folder with sound files at any depth, or a build of shards; a build also gives captions.

    Raises:
        InputError: there is no sound in it that decodes.
    """
    if Storage(path).exists(DATASET):
        return _of_build(Manifest.open(path))
    place = Path(path)
    if not place.exists():
        raise InputError("there is no such file or folder", file=place, remedy="name sounds to compare on")
    files = [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file())
    found: list[Recording] = []
    for file in _spread(files):
        try:
            found.append(_decoded(file.read_bytes()))
        except (AudioError, OSError):
            continue  # a folder may hold tables, pictures and damaged sounds
        if len(found) == CLIPS:
            break
    if not found:
        raise InputError(
            "no file of the folder is a sound that decodes", file=place, remedy="name sounds to compare on"
        )
    return CheckClips(found, list(TEXTS))


def _of_build(manifest: Manifest) -> CheckClips:
    columns = ["shard", "audio_offset", "audio_bytes", "captions"]
    numbers = list(_spread(list(range(len(manifest.table)))))[:CLIPS]
    rows = manifest.table.select(columns).take(numbers).to_pylist()
    if not rows:
        raise InputError("the build has no sample", file=manifest.storage.url)
    found = []
    for row in rows:
        data = manifest.storage.read(shard_name(row["shard"]), row["audio_offset"], row["audio_bytes"])
        try:
            found.append(_decoded(data))
        except AudioError as error:
            remedy = "run `earshot verify`"
            raise InputError(f"a sample does not decode: {error}", file=row["shard"], remedy=remedy) from error
    captions = [caption["text"] for row in rows for caption in row["captions"]]
    return CheckClips(found, captions[: 4 * CLIPS] + list(TEXTS))


def _decoded(data: bytes) -> Recording:
    if not data:
        raise AudioError("empty", "0 bytes")
    wave, rate = decode_segment(data, 0.0, LONGEST_S)
    if not len(wave):
        raise AudioError("empty", "not one sample")
    return Recording(np.ascontiguousarray(wave, dtype=np.float32), rate)


def _spread(items: list[Any]) -> Iterator[Any]:
    """All items, those first that lie evenly over the list."""
    step = max(1, len(items) // CLIPS)
    return (each for start in range(step) for each in items[start::step])
