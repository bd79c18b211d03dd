"""Acoustic fingerprints: one 32-bit code for each hop, equal where two recordings hold the same sound.

The method is that of Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002, section 4.2): bit m
of frame n is the sign of ``(E[n, m] - E[n, m+1]) - (E[n-k, m] - E[n-k, m+1])``, where E are the energies of bands
between 300 and 3,300 Hz.  Four things differ from the paper:

- The energies come from short spectra, one every second hop, that are then smoothed in time.  This takes a sixteenth of
  the transforms.  Spectra of 80 ms change so slowly that those in between would add nothing.
- The difference is taken over k = 8 hops, so that it is large compared with what a codec or noise adds.
- 24 bits come from 25 narrow bands, and 8 bits from 9 wide bands over k = 16 hops, which are more robust.
- Each frame names its weakest bit, the one most likely to differ in a copy.  The join tries both of its values.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import scipy.fft

METHOD = 2  # increases with every change of the codes; codes of two methods are never compared
RATE = 8000  # Hz at which sound is compared
HOP = 100  # samples at RATE
HOP_S = HOP / RATE
LOWEST_HZ, HIGHEST_HZ = 300.0, 3300.0
NARROW, WIDE = 25, 9  # numbers of bands; n bands give n - 1 bits
NARROW_LAG, WIDE_LAG = 8, 16  # hops between the two frames of a difference
SMOOTHING = 20  # hops over which band energies are averaged
INFORMATIVE = 1  # bit 0 of a flag: the frame may be indexed
WEAKEST_SHIFT = 1  # bits 1 to 5 of a flag: the number of the code's weakest bit

_WINDOW = 640  # samples at RATE in one spectrum
_STEP = 2  # hops between two spectra
_CONTEXT = (SMOOTHING + max(NARROW_LAG, WIDE_LAG)) // _STEP  # spectra before the one that completes a code
_ROW = 16  # samples at RATE that are decimated together; also the length of the filter
_CUTOFF, _BETA = 3800.0, 5.0  # Hz, and the shape of the filter's Kaiser window
_TRANSFORMED, _ENCODED = 64, 512  # spectra that are computed, and encoded, at once: they fit into the cache
_FLOOR = 10 ** (-80 / 10)  # a frame is not informative if its mean square is below this
_SPREAD = 1.5  # least effective number of narrow bands of an informative frame; a pure tone has fewer


class Fingerprint(NamedTuple):
    """``codes`` uint32 [n] and ``flags`` uint8 [n]; entry i describes the sound from ``i * HOP_S`` on.

    A flag has ``INFORMATIVE`` in bit 0 and the number of the code's weakest bit in bits 1 to 5.
    """

    codes: np.ndarray
    flags: np.ndarray


def _band_matrix(bands: int) -> np.ndarray:
    """Weights [bins, bands] of bands of equal width in mel.  Each edge is a ramp of one bin."""
    low, high = np.log1p(LOWEST_HZ / 700), np.log1p(HIGHEST_HZ / 700)
    edges = 700 * np.expm1(np.linspace(low, high, bands + 1))
    width = RATE / _WINDOW
    bins = np.arange(_WINDOW // 2 + 1)[:, None] * width
    rising, falling = (bins - edges[:-1]) / width + 1, (edges[1:] - bins) / width + 1
    return np.clip(np.minimum(rising, falling), 0, 1).astype(np.float32)


_TAPER = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
_TO_MEAN_SQUARE = np.float32(2 / ((_TAPER**2).sum() * _WINDOW))
_WEIGHTS = np.concatenate([_band_matrix(NARROW), _band_matrix(WIDE)], axis=1) * _TO_MEAN_SQUARE
_WEIGHTS = _WEIGHTS.repeat(2, axis=0)  # weights of the squared real and imaginary parts, which alternate in memory
_USED = slice(*(np.flatnonzero(_WEIGHTS.any(axis=1))[[0, -1]] + [0, 1]))
_WEIGHTS = np.ascontiguousarray(_WEIGHTS[_USED])
_KERNEL = np.hanning(SMOOTHING + 2)[1:-1].astype(np.float32)
_KERNEL *= _STEP / _KERNEL.sum()


class Fingerprinter:
    """Fingerprints a recording that arrives in blocks, in bounded memory.

    The result does not depend on how the sound was cut into blocks.

    Args:
        rate: samples a second of the blocks; a multiple of ``RATE``.
    """

    def __init__(self, rate: int) -> None:
        if rate % RATE:
            raise ValueError(f"{rate} Hz is no multiple of {RATE} Hz")
        self._factor = rate // RATE
        self._filter = _decimator(self._factor)
        self._sound = np.zeros(_ROW // 2 * self._factor, np.float32)  # makes up for the delay of the filter
        self._wave = np.zeros(0, np.float32)  # samples at RATE from the start of the next spectrum on
        self._energies: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._flags: list[np.ndarray] = []

    def push(self, block: np.ndarray) -> None:
        """Add mono samples, float [n], full scale 1."""
        sound = np.concatenate([self._sound, block], dtype=np.float32)
        begun, row, step = 0, _ROW * self._factor, _TRANSFORMED * _STEP * HOP * self._factor
        while (
            len(sound) >= begun + step + row
        ):  # blocks of one size, so that rounding does not depend on the input's blocks
            self._add_spectra(self._decimate(sound[begun : begun + step + row]))
            begun += step
        self._sound = sound[begun:].copy()

    def finish(self) -> Fingerprint:
        """The fingerprint of all samples that were pushed; empty if they last less than half a second."""
        row = _ROW * self._factor
        left = -(-(len(self._sound) - row // 2) // self._factor)
        padding = np.zeros(row + -len(self._sound) % row, np.float32)
        self._add_spectra(self._decimate(np.concatenate([self._sound, padding]))[:left])
        if self._energies:
            self._encode(last=True)
        if not self._codes:
            return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.uint8))
        return Fingerprint(np.concatenate(self._codes), np.concatenate(self._flags))

    def _decimate(self, sound: np.ndarray) -> np.ndarray:
        """The samples at RATE of all rows but the last one, which the filter needs as context."""
        rows = sound.reshape(-1, _ROW * self._factor)
        return (rows[:-1] @ self._filter[0] + rows[1:] @ self._filter[1]).ravel()

    def _add_spectra(self, samples: np.ndarray) -> None:
        wave = np.concatenate([self._wave, samples])
        count = max(0, (len(wave) - _WINDOW) // (_STEP * HOP) + 1)
        if count:
            self._energies.append(_band_energies(wave, count))
        self._wave = wave[count * _STEP * HOP :]
        if sum(map(len, self._energies)) >= _ENCODED:
            self._encode(last=False)

    def _encode(self, *, last: bool) -> None:
        energies = np.concatenate(self._energies)
        left = max(0, len(energies) - _CONTEXT)  # spectra before this one are no longer needed
        if left or (last and len(energies) == _CONTEXT):
            codes, flags = _encode(_smooth(energies))
            count = len(codes) if last else _STEP * left
            self._codes.append(codes[:count])
            self._flags.append(flags[:count])
        self._energies = [energies[left:]]


@functools.cache
def _decimator(factor: int) -> np.ndarray:
    """Matrices [2, _ROW * factor, _ROW] that turn a row of samples, and the next row, into a row at RATE.

    They are a low-pass filter that attenuates what decimation would fold into the bands by 50 dB.  Two matrix products
    take a quarter of the time of a resampler.
    """
    size = _ROW * factor
    time = np.arange(size + 1) - size // 2
    lowpass = np.sinc(2 * _CUTOFF / (RATE * factor) * time) * np.kaiser(size + 1, _BETA) if factor > 1 else time == 0
    weights = np.zeros((2 * size, _ROW), np.float32)
    for sample in range(_ROW):
        weights[sample * factor : sample * factor + size + 1, sample] = lowpass / lowpass.sum()
    return weights.reshape(2, size, _ROW)


def _band_energies(wave: np.ndarray, count: int) -> np.ndarray:
    """Mean squares [count, NARROW + WIDE] of the bands in the first ``count`` spectra of ``wave``, float32 [n]."""
    return np.asarray(squared_spectra(wave, _TAPER, _STEP * HOP, count)[:, _USED] @ _WEIGHTS)


def squared_spectra(wave: np.ndarray, taper: np.ndarray, step: int, count: int) -> np.ndarray:
    """Squared real and imaginary parts, which alternate, of tapered spectra: [count, len(taper) + 2].

    Spectra begin every ``step`` samples of ``wave``, which is contiguous float32 [n] and long enough for ``count``.
    """
    frames = np.ndarray((count, len(taper)), wave.dtype, wave, 0, (step * wave.itemsize, wave.itemsize))
    spectra: np.ndarray = scipy.fft.rfft(frames * taper, axis=1, overwrite_x=True).view(np.float32)
    spectra *= spectra
    return spectra


def _smooth(energies: np.ndarray) -> np.ndarray:
    """Weighted means over ``SMOOTHING`` hops of energies [n, bands], which have one row every ``_STEP`` hops.

    Returns: float32 [_STEP * n - SMOOTHING + 1, bands], one row a hop.
    """
    smooth = np.empty((_STEP * len(energies) - SMOOTHING + 1, energies.shape[1]), np.float32)
    for hop in range(_STEP):
        total = np.zeros_like(smooth[hop::_STEP])
        part = np.empty_like(total)
        for first, weight in enumerate(_KERNEL[hop::_STEP], start=hop):
            total += np.multiply(energies[first : first + len(total)], weight, out=part)
        smooth[hop::_STEP] = total
    return smooth


def _encode(smooth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and flags [n - WIDE_LAG] of smooth band energies [n, NARROW + WIDE]."""
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
    """[2, n, bands - 1]: how the difference of neighbouring bands changed over ``lag`` hops, and their energy."""
    slope = bands[:, :-1] - bands[:, 1:]
    change = slope[WIDE_LAG:] - slope[WIDE_LAG - lag : len(slope) - lag]
    return np.stack([change, (bands[:, :-1] + bands[:, 1:])[WIDE_LAG:]])


def fingerprint(wave: np.ndarray, rate: int) -> Fingerprint:
    """The fingerprint of a whole recording, mono float [n]."""
    printer = Fingerprinter(rate)
    printer.push(wave)
    return printer.finish()
