"""From waves to what an audio encoder reads: segments, spectrograms, masks, and how much of them is sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharding.common.errors import InputError
from training.data.hashing import hash64, signed
from training.data.masking import Masking
from training.data.settings import MaskingSettings
from training.data.spectrogram import FRONT_ENDS, FrontEnd

Int64 = NDArray[np.int64]
SEGMENT = 0x5345474D  # purpose of a hash: a segment's randomness from its sample's


@dataclass(frozen=True)
class AudioInput:
    """What an audio encoder wants to hear.

    Attributes:
        front_end: name in ``FRONT_ENDS``.
        rate: Hz.
        segment_s: seconds of one segment.
        hop_s: seconds from one segment's start to the next one's.
        max_s: seconds of a clip beyond which nothing is read.
    """

    front_end: str
    rate: int
    segment_s: float
    hop_s: float
    max_s: float

    @classmethod
    def of(cls, encoder: Any) -> AudioInput:
        """What an ``AudioEncoder`` declares."""
        front_end = find_front_end(encoder.front_end)
        return cls(encoder.front_end, front_end.rate, encoder.segment_s, encoder.hop_s, encoder.max_s)

    @property
    def segment(self) -> int:
        """Samples of one segment."""
        return round(self.segment_s * self.rate)

    def segment_lengths(self, samples: int) -> Int64:
        """Samples of sound in each segment of a clip; the last segment is the first that reaches its end."""
        hop = round(self.hop_s * self.rate)
        count = 1 + max(0, -(-(samples - self.segment) // hop))
        return np.minimum(self.segment, samples - hop * np.arange(count))

    def cut(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """A wave ``[samples]`` as segments ``[S, segment]``, padded with silence."""
        hop = round(self.hop_s * self.rate)
        if len(wave) == self.segment:
            return wave[None]
        lengths = self.segment_lengths(len(wave))
        out = np.zeros((len(lengths), self.segment), dtype=np.float32)
        for number, length in enumerate(lengths):
            out[number, :length] = wave[number * hop : number * hop + length]
        return out


def find_front_end(name: str) -> FrontEnd:
    """The front end of that name."""
    if name not in FRONT_ENDS:
        raise InputError("no such front end", value=name, remedy="there are " + ", ".join(sorted(FRONT_ENDS)))
    return FRONT_ENDS[name]


@dataclass(frozen=True)
class FeatureExtractor:
    """Segments to features, in a loader worker or on a device: the same numbers to rounding.

    Attributes:
        audio: what the encoder wants.
        masking: masks while training.
        train: whether filters are jittered and masks set.
    """

    audio: AudioInput
    masking: MaskingSettings
    train: bool

    def __call__(self, segments: Tensor, lengths: Tensor, seeds: Tensor, out: Tensor | None = None) -> Tensor:
        """``segments [n, samples]`` with ``lengths [n]`` of sound and ``seeds [n]`` to ``[n, F, T]`` (``out``)."""
        front_end = find_front_end(self.audio.front_end)
        features = front_end(segments, lengths, seeds, self.train, out)
        masking = Masking(self.masking)
        if not (self.train and masking.active):
            return features
        fill = front_end.floor if self.masking.fill == "floor" else front_end.published_fill
        return masking(features, self.maskable(lengths), seeds, fill)

    def frames(self, lengths: Tensor) -> Tensor:
        """Frames that hold sound, ``[n]``; 0 for a segment that is all padding."""
        front_end = find_front_end(self.audio.front_end)
        frames = torch.as_tensor(front_end.frames(lengths.cpu().numpy())).to(lengths.device)
        return torch.where(lengths > 0, frames.clamp(1, int(front_end.frames(self.audio.segment))), 0)

    def maskable(self, lengths: Tensor) -> Tensor:
        """Frames among which masks are drawn, ``[n]``: those of the sound, and of its repetitions."""
        frames = self.frames(lengths)
        return torch.full_like(frames, self.shape[1]) if find_front_end(self.audio.front_end).repeats else frames

    @property
    def shape(self) -> tuple[int, int]:
        """F and T of one segment."""
        front_end = find_front_end(self.audio.front_end)
        return front_end.bins, int(front_end.frames(self.audio.segment))


def segment_seeds(seeds: int | np.integer | Int64, segments: int) -> Int64:
    """Randomness of each segment of a sample, ``[segments]``; of samples ``[n]``: ``[n, segments]``."""
    return signed(hash64(SEGMENT, np.asarray(seeds, dtype=np.int64)[..., None], np.arange(segments)))
