"""Measuring the canonical sound of a clip (mono, 32 kHz), block by block."""

from __future__ import annotations

import hashlib

import numpy as np

from sharding.audio import CANONICAL_RATE, quantise
from sharding.dedup.fingerprint import Fingerprint, Fingerprinter, squared_spectra

_SPECTRUM = 2048  # samples in a spectrum
_STEP = 16384  # samples between two spectra: about two a second
_FLOOR = 1e-6  # -60 dB, as power
_WINDOW = np.hanning(_SPECTRUM).astype(np.float32)


class Measures:
    """Hash, levels, bandwidth and fingerprint of mono float32 blocks at 32 kHz.

    ``peak`` and ``rms`` are fractions of full scale.  ``peak`` can exceed 1 for floating-point sources.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._lowest, self._highest = np.inf, -np.inf
        self._squares = 0.0
        self._sha = hashlib.sha256()
        self._power = np.zeros(_SPECTRUM + 2)  # squares of real and imaginary parts, in turn
        self._fingerprinter = Fingerprinter(CANONICAL_RATE)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Measure a block, float32 ``[n]``, and return it as int16 ``[n]``."""
        if len(block) == 0:
            return np.zeros(0, np.int16)
        samples = quantise(block)
        self.frames += len(block)
        self._lowest = min(self._lowest, float(block.min()))
        self._highest = max(self._highest, float(block.max()))
        self._squares += float(np.dot(block, block))
        self._sha.update(samples.data)
        self._add_spectra(block)
        self._fingerprinter.push(block)
        return samples

    def _add_spectra(self, block: np.ndarray) -> None:
        if len(block) < _SPECTRUM:
            block = np.pad(block, (0, _SPECTRUM - len(block)))
        self._power += squared_spectra(block, _WINDOW, _STEP, (len(block) - _SPECTRUM) // _STEP + 1).sum(axis=0)

    @property
    def peak(self) -> float:
        """The greatest absolute value; 0 if there is no sample."""
        return max(0.0, self._highest, -self._lowest)

    @property
    def constant(self) -> bool:
        """Whether all samples are equal in 16 bits, as in digital silence."""
        lowest, highest = quantise(np.array([self._lowest, self._highest], np.float32))
        return bool(lowest >= highest)

    @property
    def rms(self) -> float:
        """The root of the mean of the squares."""
        return float(np.sqrt(self._squares / max(self.frames, 1)))

    @property
    def pcm_sha256(self) -> str:
        """SHA-256 of the canonical samples as int16, in hexadecimal."""
        return self._sha.hexdigest()

    @property
    def bandwidth_hz(self) -> float:
        """The highest frequency whose mean power is within 60 dB of the strongest frequency's (without DC)."""
        power = self._power.reshape(-1, 2).sum(axis=1)[1:]
        loud = np.flatnonzero(power >= power.max() * _FLOOR)
        return float((loud[-1] + 1) * CANONICAL_RATE / _SPECTRUM) if len(loud) else 0.0

    def fingerprint(self) -> Fingerprint:
        """The fingerprint.  Call once, at the end."""
        return self._fingerprinter.finish()
