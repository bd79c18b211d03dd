"""Time and frequency masks that depend on the sample alone (SpecAugment, arXiv 1904.08779, section 2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.sampling.hashing import hash64, uniform
from training.data.settings import MaskingSettings

Int64 = NDArray[np.int64]
GRAIN = 8  # frames or bins that are computed together; sums of single ones may be rounded in another order
TIME, FREQUENCY = 0x54494D45, 0x46524551  # purposes of hashes


@dataclass(frozen=True)
class Shown:
    """The cells of a spectrogram that no mask hides: runs of ``frames``, and runs of ``bins``, in ascending order."""

    frames: list[slice]
    bins: list[slice]

    @classmethod
    def all(cls, bins: int, frames: int) -> Shown:
        """All cells."""
        return cls([slice(0, frames)], [slice(0, bins)])


class Masks(NamedTuple):
    """The first and the last frame or bin of every mask of ``n`` samples, the last one excluded.

    Attributes:
        time: ``[n, time_masks, 2]``.
        freq: ``[n, freq_masks, 2]``.
    """

    time: Int64
    freq: Int64

    def take(self, samples: slice) -> Masks:
        """The masks of some samples."""
        return Masks(self.time[samples], self.freq[samples])

    def shown(self, sample: int, bins: int, frames: int) -> Shown:
        """The cells of a sample's spectrogram ``[bins, frames]`` that no mask hides, in whole grains."""
        return Shown(_free(self.time[sample], frames), _free(self.freq[sample], bins))


@dataclass(frozen=True)
class Masking:
    """Masks on normalised spectrograms.

    Widths and positions are uniform, as in ``torchaudio.functional.mask_along_axis_iid``.  A time mask lies within
    the valid frames and covers at most half of them, so that a short clip keeps some sound.
    """

    settings: MaskingSettings

    @property
    def active(self) -> bool:
        return self.settings.time_masks > 0 or self.settings.freq_masks > 0

    def draw(self, seeds: Int64, frames: Int64, bins: int) -> Masks:
        """The masks of samples.

        Args:
            seeds: ``[n]``, of the samples.
            frames: ``[n]``, how many frames of each sample are valid.
            bins: number of frequency bins.
        """
        settings = self.settings
        limits = np.minimum(settings.time_width, np.asarray(frames) // 2)
        time = _draw_masks(TIME, seeds, settings.time_masks, limits, np.asarray(frames))
        whole = np.full(len(seeds), bins)
        freq = _draw_masks(FREQUENCY, seeds, settings.freq_masks, np.minimum(settings.freq_width, whole), whole)
        return Masks(time, freq)

    def __call__(self, features: Tensor, frames: Tensor, seeds: Tensor, fill: float | Tensor) -> Tensor:
        """Fill the masked cells of ``features [n, F, T]`` in place, and return the features.

        Args:
            features: spectrograms.
            frames: ``[n]``, how many frames of each are valid.
            seeds: ``[n]`` int64.
            fill: the value of a masked cell, or one for each sample ``[n, 1, 1]``.
        """
        return fill_masks(features, self.draw(seeds.cpu().numpy(), frames.cpu().numpy(), features.shape[1]), fill)


def fill_masks(features: Tensor, masks: Masks, fill: float | Tensor) -> Tensor:
    """Fill the cells of ``features [n, F, T]`` that masks hide in place, and return the features.

    ``fill``: the value of a masked cell, or one for each sample ``[n, 1, 1]``.
    """
    if features.device.type == "cpu":
        values = fill.flatten().tolist() if isinstance(fill, Tensor) else [fill] * len(features)
        for sample, time, freq, value in zip(features.numpy(), *masks, values, strict=True):
            for start, end in time:
                sample[:, start:end] = value
            for start, end in freq:
                sample[start:end] = value
        return features
    _, bins, times = features.shape
    time, freq = _covered(masks.time, times, features.device), _covered(masks.freq, bins, features.device)
    return features.copy_(torch.where(time[:, None, :] | freq[:, :, None], fill, features))


def mask_digest(time: Int64, freq: Int64) -> str:
    """A short name for the masks of one sample, each ``[segments, masks, 2]``."""
    name = hashlib.blake2b(digest_size=8)
    for masks in (time, freq):
        name.update(np.ascontiguousarray(masks, dtype="<i8").tobytes() + b"|")
    return name.hexdigest()


def _draw_masks(purpose: int, seeds: Int64, masks: int, limits: Int64, sizes: Int64) -> Int64:
    """``[n, masks, 2]``: masks narrower than ``limits [n]`` along axes of ``sizes [n]``."""
    drawn = uniform(hash64(purpose, np.asarray(seeds)[:, None], np.arange(2 * masks)))
    widths = drawn[:, ::2] * limits[:, None]
    starts = np.floor(drawn[:, 1::2] * (sizes[:, None] - widths)).astype(np.int64)
    return np.stack([starts, starts + np.floor(widths).astype(np.int64)], axis=-1)


def _free(masks: Int64, size: int) -> list[slice]:
    """The runs of positions below ``size`` that are in none of ``masks [masks, 2]``, in whole grains."""
    runs, at = [], 0
    for start, end in sorted(masks.tolist()):
        begin, stop = -(-start // GRAIN) * GRAIN, size if end == size else end // GRAIN * GRAIN
        if begin < stop:
            if begin > at:
                runs.append(slice(at, begin))
            at = max(at, stop)
    return [*runs, slice(at, size)] if at < size else runs


def _covered(masks: Int64, size: int, device: torch.device) -> Tensor:
    """``[n, size]``: True inside any of ``masks [n, masks, 2]``."""
    positions = torch.arange(size, device=device)
    edges = torch.from_numpy(masks).to(device)
    return ((positions >= edges[..., :1]) & (positions < edges[..., 1:])).any(dim=1)
