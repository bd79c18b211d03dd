"""Changes to waveforms in training, drawn for each sample: a synthetic room, noise, gain, mixup."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.sampling.hashing import hash64, signed
from training.data.settings import AugmentSettings

Wave = NDArray[np.float32]
AUGMENT, MIXUP = 0x41554747, 0x4D495855  # purposes of hashes


def augment(wave: Wave, rate: int, seed: int, settings: AugmentSettings) -> Wave:
    """Apply room, noise and gain in this order, each with its own probability; equal seeds give equal results.

    Args:
        wave: mono ``[n]``.
        rate: sample rate in Hz.
        seed: the seed of the sample.
        settings: the probabilities and ranges.
    """
    if not (settings.room or settings.noise or settings.gain_db):
        return wave
    random = generator(AUGMENT, seed)
    chances = random.random(2)
    if chances[0] < settings.room:
        wave = _in_room(wave, rate, random, settings.room_rt60_s)
    if chances[1] < settings.noise:
        wave = _with_noise(wave, random, settings.noise_snr_db)
    if settings.gain_db:
        wave = wave * np.float32(10 ** (random.uniform(-settings.gain_db, settings.gain_db) / 20))
    return wave.astype(np.float32, copy=False)


def mixup_share(seed: int, settings: AugmentSettings) -> float:
    """The share of the partner in a mixed sample, at most one half; 0: nothing is mixed in."""
    random = generator(MIXUP, seed)
    if random.random() >= settings.mixup:
        return 0.0
    share = random.beta(settings.mixup_alpha, settings.mixup_alpha)
    return float(min(share, 1 - share))


def mixup(wave: Wave, partner: Wave, share: float) -> Wave:
    """``(1 - share)`` of a wave plus ``share`` of its partner (mixup, arXiv 1710.09412, section 2, on waveforms).

    The partner is cut or padded to the length of the wave.  The mean is taken off both, as in PaSST's training.
    """
    other = np.zeros_like(wave)
    count = min(len(wave), len(partner))
    other[:count] = partner[:count]
    mixed = (1 - share) * (wave - wave.mean()) + share * (other - other.mean())
    return mixed.astype(np.float32)


def generator(purpose: int, seed: int) -> np.random.Generator:
    """The random generator of one purpose of one sample."""
    key = int(signed(hash64(purpose, seed).reshape(1))[0]) & 0xFFFFFFFFFFFFFFFF
    return np.random.Generator(np.random.Philox(key=key))


def _in_room(wave: Wave, rate: int, random: np.random.Generator, rt60_s: tuple[float, float]) -> Wave:
    """Convolve with exponentially decaying noise (Polack's model), which has fallen by 60 dB after the drawn time."""
    rt60 = random.uniform(*rt60_s)
    times = np.arange(max(1, int(rt60 * rate))) / rate
    response = random.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    response[0] = np.abs(response).max() * 4  # the direct sound
    response /= np.sqrt(np.sum(response**2))
    from scipy.signal import fftconvolve  # takes most of a second to import, in every process that reads sounds

    return fftconvolve(wave, response.astype(np.float32))[: len(wave)].astype(np.float32)


def _with_noise(wave: Wave, random: np.random.Generator, snr_db: tuple[float, float]) -> Wave:
    level = np.sqrt(np.mean(np.square(wave, dtype=np.float64))) * 10 ** (-random.uniform(*snr_db) / 20)
    return wave + (level * random.standard_normal(len(wave), dtype=np.float32)).astype(np.float32)
