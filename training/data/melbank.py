"""Mel filter banks whose products skip the frequencies where a filter is zero."""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio.compliance.kaldi as kaldi
import torchaudio.functional
from torch import Tensor

GROUP = 16  # filters that are multiplied together, because neighbours share most of their frequencies


class MelBank:
    """A filter bank ``[bins, frequencies]`` and its product with power spectra.

    A triangular filter covers few of the frequencies.  On a CPU, each group of neighbouring filters is therefore
    multiplied with its own band alone, which gives the same sums in a quarter of the time.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self._bands: list[tuple[int, int, int, Tensor]] = []
        for first in range(0, len(weights), GROUP):
            group = weights[first : first + GROUP]
            used = group.any(0).nonzero().flatten()
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            self._bands.append((first, low, high, group[:, low:high].contiguous()))

    def __call__(self, power: Tensor) -> Tensor:
        """``power [frequencies, T]`` on the CPU to ``[bins, T]``."""
        out = torch.empty(len(self.weights), power.shape[1])
        for first, low, high, band in self._bands:
            torch.mm(band, power[low:high], out=out[first : first + len(band)])
        return out


@lru_cache(maxsize=8)  # small: training draws new edges for each segment, so few banks are used twice
def kaldi_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Kaldi's triangular filters (torchaudio), with weight zero at the Nyquist frequency, which Kaldi omits."""
    weights, _ = kaldi.get_mel_banks(bins, n_fft, float(rate), low, high, 100.0, -500.0, 1.0)
    return MelBank(torch.nn.functional.pad(weights, (0, 1)))


@lru_cache(maxsize=4)
def htk_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Triangular filters of equal height on HTK's mel scale (torchaudio)."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, None, "htk")
    return MelBank(weights.T.contiguous())


@lru_cache(maxsize=16)
def slaney_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Slaney's triangular filters of equal area (torchaudio), as librosa makes them."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, "slaney", "slaney")
    return MelBank(weights.T.contiguous())
