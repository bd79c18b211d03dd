"""From waves to the input of an audio encoder: segments, spectrograms, masks, and the number of valid frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharding.common.errors import InputError
from training.data.sampling.hashing import hash64, signed
from training.data.settings import MaskingSettings
from training.data.sound.masking import Masking, Masks, fill_masks
from training.data.sound.spectrogram import FRONT_ENDS, FrontEnd

Int64 = NDArray[np.int64]
REST = 0.05  # of a segment: a shorter rest of a clip is no segment of its own
SEGMENT = 0x5345474D  # purpose of a hash: the seed of a segment, made from the seed of its sample


@dataclass(frozen=True)
class AudioInput:
    """The input that an audio encoder takes.

    Attributes:
        front_end: the front end's name in ``FRONT_ENDS``.
        rate: sample rate in Hz.
        segment_s: length of a segment in seconds.
        hop_s: seconds from the start of one segment to the start of the next one.
        max_s: the most seconds of a clip that are read.
    """

    front_end: str
    rate: int
    segment_s: float
    hop_s: float
    max_s: float

    def __post_init__(self) -> None:
        for name in ("segment_s", "hop_s", "max_s"):
            if round(getattr(self, name) * self.rate) < 1:
                raise InputError(f"{name} is shorter than one sample at {self.rate} Hz", value=getattr(self, name))

    @classmethod
    def of(cls, encoder: Any) -> AudioInput:
        """The input that an ``AudioEncoder`` declares."""
        front_end = find_front_end(encoder.front_end)
        return cls(encoder.front_end, front_end.rate, encoder.segment_s, encoder.hop_s, encoder.max_s)

    @property
    def segment(self) -> int:
        """Audio samples in one segment."""
        return round(self.segment_s * self.rate)

    def segment_lengths(self, samples: int) -> Int64:
        """Samples of sound in each segment of a clip; the first segment that reaches the clip's end is the last one.

        A rest of at most `REST` of a segment is left out.  A clip of 10 s that a codec has made a little longer would
        otherwise be two segments of 10 s, the second one of silence, and both count alike in the mean.
        """
        hop = round(self.hop_s * self.rate)
        rest = samples - self.segment - int(REST * self.segment)
        count = 1 + max(0, -(-rest // hop))
        return np.minimum(self.segment, samples - hop * np.arange(count))

    def cut(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """A wave ``[samples]`` as segments ``[S, segment]``; the last one is padded with silence."""
        hop = round(self.hop_s * self.rate)
        if len(wave) == self.segment:
            return wave[None]
        lengths = self.segment_lengths(len(wave))
        out = np.zeros((len(lengths), self.segment), dtype=np.float32)
        for number, length in enumerate(lengths):
            out[number, :length] = wave[number * hop : number * hop + length]
        return out


def find_front_end(name: str) -> FrontEnd:
    """The front end of a name; an unknown name is an ``InputError``."""
    if name not in FRONT_ENDS:
        raise InputError("no such front end", value=name, remedy="there are " + ", ".join(sorted(FRONT_ENDS)))
    return FRONT_ENDS[name]


class Drawn(NamedTuple):
    """What ``n`` segments are transformed with.

    Attributes:
        front_end: of the front end, ``[n, ...]``.
        masks: None where nothing is masked.
    """

    front_end: Int64
    masks: Masks | None

    def take(self, segments: slice) -> Drawn:
        """What some of the segments are transformed with."""
        return Drawn(self.front_end[segments], None if self.masks is None else self.masks.take(segments))


@dataclass(frozen=True)
class FeatureExtractor:
    """Segments to features; a loader worker and a device compute the same numbers up to rounding.

    Attributes:
        audio: the input that the encoder takes.
        masking: the masks in training.
        train: whether to draw filter edges and masks.
    """

    audio: AudioInput
    masking: MaskingSettings
    train: bool

    def __call__(self, segments: Tensor, lengths: Tensor, seeds: Tensor, out: Tensor | None = None) -> Tensor:
        """``segments [n, samples]`` with ``lengths [n]`` of sound and ``seeds [n]`` to features ``[n, F, T]``."""
        return self.transform(segments, lengths, self.draw(lengths, seeds.cpu().numpy()), out)

    def draw(self, lengths: Tensor, seeds: Int64) -> Drawn:
        """What segments with ``lengths [n]`` and ``seeds [n]`` are transformed with; many at once take less time."""
        front_end, masking = find_front_end(self.audio.front_end), Masking(self.masking)
        drawn = front_end.draw(seeds, self.train)
        if not (self.train and masking.active):
            return Drawn(drawn, None)
        return Drawn(drawn, masking.draw(seeds, self.maskable(lengths).cpu().numpy(), front_end.bins))

    def transform(self, segments: Tensor, lengths: Tensor, drawn: Drawn, out: Tensor | None = None) -> Tensor:
        """The features ``[n, F, T]`` of segments for which ``drawn`` was drawn, in ``out`` where it is given."""
        front_end = find_front_end(self.audio.front_end)
        features = front_end(segments, lengths, drawn.front_end, out, drawn.masks)
        if drawn.masks is None:
            return features
        fill = front_end.silence(features) if self.masking.fill == "floor" else front_end.published_fill
        return fill_masks(features, drawn.masks, fill)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames hold sound, ``[n]``; 0 for a segment that is all padding."""
        front_end = find_front_end(self.audio.front_end)
        frames = torch.as_tensor(front_end.frames(lengths.cpu().numpy())).to(lengths.device)
        return torch.where(lengths > 0, frames.clamp(1, int(front_end.frames(self.audio.segment))), 0)

    def maskable(self, lengths: Tensor) -> Tensor:
        """How many frames masks may cover, ``[n]``: those of the sound, and of its repetitions where it is repeated."""
        frames = self.frames(lengths)
        return torch.full_like(frames, self.shape[1]) if find_front_end(self.audio.front_end).repeats else frames

    @property
    def shape(self) -> tuple[int, int]:
        """F and T of one segment's features."""
        front_end = find_front_end(self.audio.front_end)
        return front_end.bins, int(front_end.frames(self.audio.segment))


def segment_seeds(seeds: int | np.integer | Int64, segments: int) -> Int64:
    """The seed of each segment: of one sample ``[segments]``, of samples ``[n]`` ``[n, segments]``."""
    return signed(hash64(SEGMENT, np.asarray(seeds, dtype=np.int64)[..., None], np.arange(segments)))
