"""Acoustic fingerprints: one 32-bit code a hop, equal where two recordings hold the same sound.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002, section 4.2): bit m of
frame n is the sign of ``(E[n, m] - E[n, m+1]) - (E[n-k, m] - E[n-k, m+1])`` for the energies E of bands
between 300 and 3,300 Hz.  What differs from the paper:

- the energies come from short spectra that are then smoothed in time (an eighth of the transforms);
- the difference is taken over k = 8 hops, so that it is large against what a codec or noise adds;
- 24 bits come from 25 narrow bands, and 8 from 9 wide bands over k = 16 hops, which survive more;
- each frame names its weakest bit, the one most likely to differ in a copy, so that a join can try both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import soxr

RATE = 8000  # Hz at which sound is compared
HOP = 100  # samples at RATE
HOP_S = HOP / RATE
LOWEST_HZ, HIGHEST_HZ = 300.0, 3300.0
NARROW, WIDE = 25, 9  # bands; each set gives one bit fewer
NARROW_LAG, WIDE_LAG = 8, 16  # hops between the two frames of a difference
SMOOTHING = 20  # hops over which band energies are averaged
INFORMATIVE = 1  # bit 0 of a flag: the frame may be indexed
WEAKEST_SHIFT = 1  # bits 1 to 5 of a flag: the number of the code's weakest bit

_WINDOW = 512
_CONTEXT = SMOOTHING - 1 + max(NARROW_LAG, WIDE_LAG)  # spectra before the one that completes a code
_SPECTRA_A_BLOCK = 512
_FLOOR = 10 ** (-80 / 10)  # mean square of full scale below which a frame says nothing
_SPREAD = 1.5  # effective number of narrow bands that a frame must fill: fewer is a pure tone


class Fingerprint(NamedTuple):
    """``codes`` uint32 [n] and ``flags`` uint8 [n]; entry i describes the sound from ``i * HOP_S`` on.

    A flag has ``INFORMATIVE`` in bit 0 and the number of the code's weakest bit in bits 1 to 5.
    """

    codes: np.ndarray
    flags: np.ndarray


def _band_matrix(bands: int) -> np.ndarray:
    """Weights [bins, bands] of bands equally wide in mel, with edges one bin soft."""
    low, high = np.log1p(LOWEST_HZ / 700), np.log1p(HIGHEST_HZ / 700)
    edges = 700 * np.expm1(np.linspace(low, high, bands + 1))
    width = RATE / _WINDOW
    bins = np.arange(_WINDOW // 2 + 1)[:, None] * width
    rising, falling = (bins - edges[:-1]) / width + 1, (edges[1:] - bins) / width + 1
    return np.clip(np.minimum(rising, falling), 0, 1).astype(np.float32)


_TAPER = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
_TO_MEAN_SQUARE = np.float32(2 / ((_TAPER**2).sum() * _WINDOW))
_MATRIX = np.concatenate([_band_matrix(NARROW), _band_matrix(WIDE)], axis=1) * _TO_MEAN_SQUARE
_KERNEL = np.hanning(SMOOTHING + 2)[1:-1].astype(np.float32)
_KERNEL /= _KERNEL.sum()


class Fingerprinter:
    """Fingerprints a recording that arrives in blocks, in bounded memory.

    The result does not depend on how the sound was cut into blocks.

    Args:
        rate: samples a second of the blocks.
    """

    def __init__(self, rate: int) -> None:
        self._resampler = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="LQ")
        self._block = rate * 4  # blocks of one size whatever arrives, so that rounding is the same
        self._incoming = _Queue()
        self._wave = _Queue()
        self._energies = np.zeros((0, NARROW + WIDE), np.float32)
        self._codes: list[np.ndarray] = []
        self._flags: list[np.ndarray] = []

    def push(self, block: np.ndarray) -> None:
        """Take mono samples, float [n], full scale 1."""
        self._incoming.push(np.asarray(block, np.float32))
        while len(self._incoming) >= self._block:
            self._resample(self._incoming.take(self._block), last=False)

    def finish(self) -> Fingerprint:
        """The fingerprint of everything that was pushed; shorter than half a second: empty."""
        self._resample(self._incoming.take(len(self._incoming)), last=True)
        self._spectra((len(self._wave) - _WINDOW) // HOP + 1)
        if not self._codes:
            return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.uint8))
        return Fingerprint(np.concatenate(self._codes), np.concatenate(self._flags))

    def _resample(self, samples: np.ndarray, last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        self._wave.push(samples)
        while len(self._wave) >= (_SPECTRA_A_BLOCK - 1) * HOP + _WINDOW:
            self._spectra(_SPECTRA_A_BLOCK)

    def _spectra(self, count: int) -> None:
        if count <= 0:
            return
        wave = self._wave.peek((count - 1) * HOP + _WINDOW)
        self._wave.drop(count * HOP)
        frames = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::HOP]
        spectrum = scipy.fft.rfft(frames * _TAPER, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        energies = np.concatenate([self._energies, power @ _MATRIX])
        self._energies = energies[-_CONTEXT:] if len(energies) > _CONTEXT else energies
        if len(energies) > _CONTEXT:
            codes, flags = _encode(energies)
            self._codes.append(codes)
            self._flags.append(flags)


def _encode(energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and flags [n - _CONTEXT] of band energies [n, NARROW + WIDE]."""
    count = len(energies) - SMOOTHING + 1
    smooth = np.zeros((count, energies.shape[1]), np.float32)
    for k in range(SMOOTHING):
        smooth += _KERNEL[k] * energies[k : k + count]
    narrow, wide = smooth[:, :NARROW], smooth[:, NARROW:]
    change, weight = np.concatenate([_differences(narrow, NARROW_LAG), _differences(wide, WIDE_LAG)], axis=2)
    codes = np.packbits(change > 0, axis=1, bitorder="little").view("<u4")[:, 0]
    weakest = np.argmin(np.abs(change) / np.maximum(weight, 1e-20), axis=1).astype(np.uint8)
    now = narrow[WIDE_LAG:]
    total = now.sum(axis=1)
    spread = np.sqrt(np.maximum(now, 0)).sum(axis=1) ** 2 / np.maximum(total, 1e-30)
    informative = (total > _FLOOR) & (spread > _SPREAD)
    return codes.copy(), (weakest << WEAKEST_SHIFT) | informative.astype(np.uint8) * np.uint8(INFORMATIVE)


def _differences(bands: np.ndarray, lag: int) -> np.ndarray:
    """[2, n, bands - 1]: the change of each pair of neighbours over ``lag`` hops, and the pair's energy."""
    slope = bands[:, :-1] - bands[:, 1:]
    change = slope[WIDE_LAG:] - slope[WIDE_LAG - lag : len(slope) - lag]
    return np.stack([change, (bands[:, :-1] + bands[:, 1:])[WIDE_LAG:]])


def fingerprint(wave: np.ndarray, rate: int) -> Fingerprint:
    """The fingerprint of a whole recording, mono float [n]."""
    printer = Fingerprinter(rate)
    printer.push(wave)
    return printer.finish()


class _Queue:
    """Samples waiting in order: arrays in at one end, any number of samples out at the other."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, samples: np.ndarray) -> None:
        if len(samples):
            self._parts.append(samples)
            self._size += len(samples)

    def peek(self, count: int) -> np.ndarray:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0][:count] if self._parts else np.zeros(0, np.float32)

    def drop(self, count: int) -> None:
        rest = self.peek(self._size)[count:]
        self._parts = [rest] if len(rest) else []
        self._size = len(rest)

    def take(self, count: int) -> np.ndarray:
        samples = self.peek(count)
        self.drop(count)
        return samples
