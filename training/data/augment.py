"""Changes to waveforms while training, drawn per sample: gain, noise, a synthetic room, mixup."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from training.data.hashing import hash64, signed
from training.data.settings import AugmentSettings

Wave = NDArray[np.float32]
AUGMENT, MIXUP = 0x41554747, 0x4D495855  # purposes of hashes


def augment(wave: Wave, rate: int, seed: int, settings: AugmentSettings) -> Wave:
    """Room, then noise, then gain, each with its own probability; the same for the same ``seed``.

    Args:
        wave: mono ``[n]``.
        rate: Hz.
        seed: the sample's.
    """
    if not (settings.room or settings.noise or settings.gain_db):
        return wave
    draw = generator(AUGMENT, seed)
    chances = draw.random(2)
    if chances[0] < settings.room:
        wave = _in_room(wave, rate, draw, settings.room_rt60_s)
    if chances[1] < settings.noise:
        wave = _with_noise(wave, draw, settings.noise_snr_db)
    if settings.gain_db:
        wave = wave * np.float32(10 ** (draw.uniform(-settings.gain_db, settings.gain_db) / 20))
    return wave.astype(np.float32, copy=False)


def mixup_share(seed: int, settings: AugmentSettings) -> float:
    """The partner's share of a sample's mix, at most one half; 0: the sample stays alone."""
    draw = generator(MIXUP, seed)
    if draw.random() >= settings.mixup:
        return 0.0
    share = draw.beta(settings.mixup_alpha, settings.mixup_alpha)
    return float(min(share, 1 - share))


def mixup(wave: Wave, partner: Wave, share: float) -> Wave:
    """The wave with ``share`` of a partner in it (mixup of waveforms, arXiv 1710.09412 equation 1).

    The partner is cut or padded to the wave's length, and both are centred, as in PaSST's training.
    """
    other = np.zeros_like(wave)
    count = min(len(wave), len(partner))
    other[:count] = partner[:count]
    mixed = (1 - share) * (wave - wave.mean()) + share * (other - other.mean())
    return mixed.astype(np.float32)


def generator(purpose: int, seed: int) -> np.random.Generator:
    """A generator that belongs to one purpose of one sample."""
    key = int(signed(hash64(purpose, seed).reshape(1))[0]) & 0xFFFFFFFFFFFFFFFF
    return np.random.Generator(np.random.Philox(key=key))


def _in_room(wave: Wave, rate: int, draw: np.random.Generator, rt60_s: tuple[float, float]) -> Wave:
    """Convolution with exponentially decaying noise (Polack's model): -60 dB after the drawn time."""
    rt60 = draw.uniform(*rt60_s)
    times = np.arange(max(1, int(rt60 * rate))) / rate
    response = draw.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    response[0] = np.abs(response).max() * 4  # the direct path
    response /= np.sqrt(np.sum(response**2))
    return fftconvolve(wave, response.astype(np.float32))[: len(wave)].astype(np.float32)


def _with_noise(wave: Wave, draw: np.random.Generator, snr_db: tuple[float, float]) -> Wave:
    level = np.sqrt(np.mean(np.square(wave, dtype=np.float64))) * 10 ** (-draw.uniform(*snr_db) / 20)
    return wave + (level * draw.standard_normal(len(wave), dtype=np.float32)).astype(np.float32)
