"""Mel filter banks whose products skip the frequencies where a filter is zero."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
import torchaudio.functional
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

GROUP = 16  # filters that are multiplied together, because neighbours share most of their frequencies


class MelBank:
    """A filter bank ``[bins, frequencies]`` and its product with power spectra.

    A triangular filter covers few of the frequencies.  On a CPU, each group of neighbouring filters is therefore
    multiplied with its own band alone, which gives the same sums in a quarter of the time.

    Args:
        frequencies: how many there are.
        bands: for each group of ``GROUP`` filters, or what is left of them, the first frequency of its band, and the
            filters there, ``[filters, width]``.
    """

    def __init__(self, frequencies: int, bands: Sequence[tuple[int, Tensor]]) -> None:
        self._frequencies, self._bands = frequencies, bands

    @classmethod
    def dense(cls, weights: Tensor) -> MelBank:
        """The bank whose filters are ``weights [bins, frequencies]``."""
        bands = []
        for group in weights.split(GROUP):
            used = group.any(0).nonzero().flatten()
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            bands.append((low, group[:, low:high].contiguous()))
        return cls(weights.shape[1], bands)

    @property
    def weights(self) -> Tensor:
        """All filters, ``[bins, frequencies]``."""
        return torch.cat([F.pad(band, (low, self._frequencies - low - band.shape[1])) for low, band in self._bands])

    def __call__(self, power: Tensor) -> Tensor:
        """``power [frequencies, T]`` on the CPU to ``[bins, T]``."""
        out = torch.empty(sum(len(band) for _, band in self._bands), power.shape[1])
        for (low, band), part in zip(self._bands, out.split(GROUP), strict=True):
            torch.mm(band, power[low : low + band.shape[1]], out=part)
        return out


@lru_cache(maxsize=8)  # small: training draws new edges for each segment, so few banks are used twice
def kaldi_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Kaldi's triangular filters, with weight zero at the Nyquist frequency, which Kaldi omits.

    The weights are those of torchaudio's ``get_mel_banks`` to the bit, but nothing is computed where they are zero.
    """
    mels = _kaldi_mels(n_fft, rate)
    lowest, highest = kaldi.mel_scale_scalar(low), kaldi.mel_scale_scalar(high)
    # a filter rises from one edge to the next one, and falls to the one after that
    edges = np.arange(bins + 2, dtype=np.float32) * np.float32((highest - lowest) / (bins + 1)) + np.float32(lowest)
    firsts = np.arange(0, bins, GROUP)
    lasts = np.minimum(firsts + GROUP, bins) - 1
    begins, ends = mels.searchsorted(edges[firsts], "right"), mels.searchsorted(edges[lasts + 2], "left")
    bands = []
    for first, last, begin, end in np.stack((firsts, lasts, begins, ends), 1).tolist():
        left, centre, right = (edges[first + step : last + step + 1, None] for step in range(3))
        band = mels[begin:end]
        slopes = np.minimum((band - left) / (centre - left), (right - band) / (right - centre))
        bands.append((begin, torch.from_numpy(np.maximum(slopes, 0, out=slopes))))
    return MelBank(len(mels) + 1, bands)


@lru_cache(maxsize=4)
def _kaldi_mels(n_fft: int, rate: int) -> NDArray[np.float32]:
    """The frequencies of a spectrum, without the Nyquist frequency, in mel as Kaldi has it: ``[n_fft / 2]``."""
    mels: NDArray[np.float32] = kaldi.mel_scale(rate / n_fft * torch.arange(n_fft / 2)).numpy()
    return mels


@lru_cache(maxsize=4)
def htk_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Triangular filters of equal height on HTK's mel scale (torchaudio)."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, None, "htk")
    return MelBank.dense(weights.T.contiguous())


@lru_cache(maxsize=16)
def slaney_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Slaney's triangular filters of equal area (torchaudio), as librosa makes them."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, "slaney", "slaney")
    return MelBank.dense(weights.T.contiguous())
