"""Time and frequency masks whose place depends on the sample alone (SpecAugment, arXiv 1904.08779, 2)."""

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

    Widths and places are uniform, as in ``torchaudio.functional.mask_along_axis_iid``; a time mask stands in
    the valid frames and covers at most half of them, so that a short clip keeps some sound.
    """

    settings: MaskingSettings

    @property
    def active(self) -> bool:
        return self.settings.time_masks > 0 or self.settings.freq_masks > 0

    def draw(self, seeds: Int64, frames: Int64, bins: int) -> tuple[Int64, Int64]:
        """Where the masks of each sample stand.

        Args:
            seeds: ``[n]``.
            frames: ``[n]`` valid frames.
            bins: frequency bins.

        Returns:
            time masks ``[n, time_masks, 2]`` and frequency masks ``[n, freq_masks, 2]``: start and end.
        """
        one = self.settings
        limits = np.minimum(one.time_width, np.asarray(frames) // 2)
        time = _spans(TIME, seeds, one.time_masks, limits, np.asarray(frames))
        whole = np.full(len(seeds), bins)
        freq = _spans(FREQUENCY, seeds, one.freq_masks, np.minimum(one.freq_width, whole), whole)
        return time, freq

    def __call__(self, features: Tensor, frames: Tensor, seeds: Tensor, fill: float) -> Tensor:
        """Fill the masks of ``features [n, F, T]`` in place and return them.

        Args:
            frames: ``[n]`` valid frames; seeds: ``[n]`` int64.
            fill: value of a masked cell.
        """
        _, bins, times = features.shape
        time, freq = self.draw(seeds.cpu().numpy(), frames.cpu().numpy(), bins)
        if features.device.type == "cpu":
            for one, time_masks, freq_masks in zip(features, time, freq, strict=True):
                for start, end in time_masks:
                    one[:, start:end] = fill
                for start, end in freq_masks:
                    one[start:end] = fill
            return features
        covered = _covered(time, times, features.device)[:, None, :] | _covered(freq, bins, features.device)[:, :, None]
        return features.masked_fill_(covered, fill)


def mask_digest(time: Int64, freq: Int64) -> str:
    """A short name for the masks of one sample: ``[segments, masks, 2]`` each."""
    name = hashlib.blake2b(digest_size=8)
    for spans in (time, freq):
        name.update(np.ascontiguousarray(spans, dtype="<i8").tobytes() + b"|")
    return name.hexdigest()


def _spans(purpose: int, seeds: Int64, masks: int, limits: Int64, sizes: Int64) -> Int64:
    number = np.arange(masks)
    column = np.asarray(seeds)[:, None]
    widths = uniform(hash64(purpose, column, 2 * number)) * limits[:, None]
    starts = np.floor(uniform(hash64(purpose, column, 2 * number + 1)) * (sizes[:, None] - widths)).astype(np.int64)
    return np.stack([starts, starts + np.floor(widths).astype(np.int64)], axis=-1)


def _covered(spans: Int64, size: int, device: torch.device) -> Tensor:
    """``[n, size]`` True inside any of ``spans [n, masks, 2]``."""
    places = torch.arange(size, device=device)
    edges = torch.from_numpy(spans).to(device)
    return ((places >= edges[..., :1]) & (places < edges[..., 1:])).any(dim=1)
