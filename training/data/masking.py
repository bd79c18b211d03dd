"""Time and frequency masks that depend on the sample alone (SpecAugment, arXiv 1904.08779, section 2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.hashing import hash64, uniform
from training.data.settings import MaskingSettings

Int64 = NDArray[np.int64]
TIME, FREQUENCY = 0x54494D45, 0x46524551  # purposes of hashes


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

    def draw(self, seeds: Int64, frames: Int64, bins: int) -> tuple[Int64, Int64]:
        """The first and the last frame or bin of every mask, the last one excluded.

        Args:
            seeds: ``[n]``, of the samples.
            frames: ``[n]``, how many frames of each sample are valid.
            bins: number of frequency bins.

        Returns:
            time masks ``[n, time_masks, 2]`` and frequency masks ``[n, freq_masks, 2]``.
        """
        settings = self.settings
        limits = np.minimum(settings.time_width, np.asarray(frames) // 2)
        time = _draw_masks(TIME, seeds, settings.time_masks, limits, np.asarray(frames))
        whole = np.full(len(seeds), bins)
        freq = _draw_masks(FREQUENCY, seeds, settings.freq_masks, np.minimum(settings.freq_width, whole), whole)
        return time, freq

    def __call__(self, features: Tensor, frames: Tensor, seeds: Tensor, fill: float | Tensor) -> Tensor:
        """Fill the masked cells of ``features [n, F, T]`` in place, and return the features.

        Args:
            features: spectrograms.
            frames: ``[n]``, how many frames of each are valid.
            seeds: ``[n]`` int64.
            fill: the value of a masked cell, or one for each sample ``[n, 1, 1]``.
        """
        _, bins, times = features.shape
        time, freq = self.draw(seeds.cpu().numpy(), frames.cpu().numpy(), bins)
        if features.device.type == "cpu":
            values = fill.flatten().tolist() if isinstance(fill, Tensor) else [fill] * len(features)
            for sample, time_masks, freq_masks, value in zip(features, time, freq, values, strict=True):
                for start, end in time_masks:
                    sample[:, start:end] = value
                for start, end in freq_masks:
                    sample[start:end] = value
            return features
        covered = _covered(time, times, features.device)[:, None, :] | _covered(freq, bins, features.device)[:, :, None]
        return features.copy_(torch.where(covered, fill, features))


def mask_digest(time: Int64, freq: Int64) -> str:
    """A short name for the masks of one sample, each ``[segments, masks, 2]``."""
    name = hashlib.blake2b(digest_size=8)
    for masks in (time, freq):
        name.update(np.ascontiguousarray(masks, dtype="<i8").tobytes() + b"|")
    return name.hexdigest()


def _draw_masks(purpose: int, seeds: Int64, masks: int, limits: Int64, sizes: Int64) -> Int64:
    """``[n, masks, 2]``: masks narrower than ``limits [n]`` along axes of ``sizes [n]``."""
    number = np.arange(masks)
    column = np.asarray(seeds)[:, None]
    widths = uniform(hash64(purpose, column, 2 * number)) * limits[:, None]
    starts = np.floor(uniform(hash64(purpose, column, 2 * number + 1)) * (sizes[:, None] - widths)).astype(np.int64)
    return np.stack([starts, starts + np.floor(widths).astype(np.int64)], axis=-1)


def _covered(masks: Int64, size: int, device: torch.device) -> Tensor:
    """``[n, size]``: True inside any of ``masks [n, masks, 2]``."""
    positions = torch.arange(size, device=device)
    edges = torch.from_numpy(masks).to(device)
    return ((positions >= edges[..., :1]) & (positions < edges[..., 1:])).any(dim=1)
