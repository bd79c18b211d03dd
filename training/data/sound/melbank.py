"""Mel filter banks whose products skip the frequencies where a filter is zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
import torchaudio.functional
from numpy.typing import NDArray
from torch import Tensor

GROUP = 16  # filters that are multiplied together, because neighbours share most of their frequencies


class MelBank:
    """A filter bank and its product with power spectra.

    A triangular filter covers few of the frequencies.  On a CPU, each group of neighbouring filters is therefore
    multiplied with its own band alone, which gives the same sums in a quarter of the time.

    Args:
        weights: the filters, ``[bins, frequencies]``.
        begins, ends: ``[bins]``, the band of each filter, outside of which its weights are zero.
    """

    def __init__(self, weights: Tensor, begins: Sequence[int], ends: Sequence[int]) -> None:
        self.weights, self._begins, self._ends = weights, begins, ends

    @classmethod
    def of(cls, weights: Tensor) -> MelBank:
        """The bank whose filters are ``weights [bins, frequencies]``."""
        used = [filters.nonzero().flatten().tolist() or [0] for filters in weights]
        return cls(weights, [places[0] for places in used], [places[-1] + 1 for places in used])

    def groups(self, runs: Sequence[slice]) -> Iterator[tuple[slice, slice, Tensor]]:
        """Groups of filters that are multiplied together.

        Args:
            runs: the filters that are wanted.

        Yields:
            the filters of each group, the band of frequencies that they cover, and their weights there.
        """
        for run in runs:
            for first in range(run.start, run.stop, GROUP):
                group = slice(first, min(first + GROUP, run.stop))
                begin = min(self._begins[group])
                band = slice(begin, max(begin, *self._ends[group]))
                yield group, band, self.weights[group, band]


@lru_cache(maxsize=8)  # small: training draws new edges for each segment, so few banks are used twice
def kaldi_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Kaldi's triangular filters, with weight zero at the Nyquist frequency, which Kaldi omits.

    The weights are those of torchaudio's ``get_mel_banks`` to the bit, but nothing is computed where they are zero.
    """
    mels = _kaldi_mels(n_fft, rate)
    lowest, highest = kaldi.mel_scale_scalar(low), kaldi.mel_scale_scalar(high)
    # a filter rises from one edge to the next one, and falls to the one after that
    edges = np.arange(bins + 2, dtype=np.float32) * np.float32((highest - lowest) / (bins + 1)) + np.float32(lowest)
    places = mels.searchsorted(edges, "right")  # the first frequency above each edge
    frequencies = np.arange(places[0], places[-1])
    between, above = mels[frequencies], np.repeat(np.arange(1, bins + 2), np.diff(places))
    widths = edges[above] - edges[above - 1]
    weights = np.zeros((bins + 2, len(mels) + 1), np.float32)  # one more filter at either end, of which half is here
    weights[above, frequencies] = (between - edges[above - 1]) / widths
    weights[above - 1, frequencies] = (edges[above] - between) / widths
    return MelBank(torch.from_numpy(weights[1:-1]), places[:-2].tolist(), places[2:].tolist())


@lru_cache(maxsize=4)
def _kaldi_mels(n_fft: int, rate: int) -> NDArray[np.float32]:
    """The frequencies of a spectrum, without the Nyquist frequency, in mel as Kaldi has it: ``[n_fft / 2]``."""
    mels: NDArray[np.float32] = kaldi.mel_scale(rate / n_fft * torch.arange(n_fft / 2)).numpy()
    return mels


@lru_cache(maxsize=4)
def htk_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Triangular filters of equal height on HTK's mel scale (torchaudio)."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, None, "htk")
    return MelBank.of(weights.T.contiguous())


@lru_cache(maxsize=16)
def slaney_bank(bins: int, n_fft: int, rate: int, low: float, high: float) -> MelBank:
    """Slaney's triangular filters of equal area (torchaudio), as librosa makes them."""
    weights = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, high, bins, rate, "slaney", "slaney")
    return MelBank.of(weights.T.contiguous())
