"""Sounds that are easily mistaken for each other, drawn anew from each generator: pairs must never merge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.signal
import soxr

RATE = 32000
Maker = Callable[[np.random.Generator, int], np.ndarray]


def coloured(rng: np.random.Generator, n: int, slope: float) -> np.ndarray:
    """Gaussian noise whose amplitude falls with frequency to the power of ``slope``."""
    length = scipy.fft.next_fast_len(n, real=True)
    f = scipy.fft.rfftfreq(length, 1 / RATE)
    f[0] = f[1]
    return scipy.fft.irfft(scipy.fft.rfft(rng.standard_normal(length)) * f**-slope, length)[:n]


def rain(rng: np.random.Generator, n: int) -> np.ndarray:
    x = coloured(rng, n, rng.uniform(0, 0.4))
    x /= x.std()
    drop = np.exp(-np.arange(200) / rng.uniform(10, 60))
    for start in rng.integers(0, max(1, n - 200), int(n / RATE * rng.uniform(20, 400))):
        piece = x[start : start + 200]
        piece += drop[: len(piece)] * rng.standard_normal(len(piece)) * rng.exponential(3)
    return x


def wind(rng: np.random.Generator, n: int) -> np.ndarray:
    gusts = scipy.signal.sosfilt(
        scipy.signal.butter(2, rng.uniform(0.2, 2), fs=RATE, output="sos"), rng.standard_normal(n)
    )
    return coloured(rng, n, rng.uniform(0.6, 1.2)) * np.exp(gusts / gusts.std() * 0.5)


def hum(rng: np.random.Generator, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    f0 = rng.choice([50, 60, 100, 120, rng.uniform(40, 200)])
    x = np.zeros(n)
    for h in range(1, int(rng.integers(5, 60))):
        x += np.sin(2 * np.pi * f0 * h * t + rng.uniform(0, 6.3)) * h ** -rng.uniform(0.5, 1.5) * rng.uniform(0.3, 1)
    return x + rng.standard_normal(n) * x.std() * 10 ** rng.uniform(-4, -1)


def tones(rng: np.random.Generator, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    pitches = rng.choice([440, 500, 880, 1000, 1000, 2000, rng.uniform(300, 3000)], rng.integers(1, 4))
    return np.sum([np.sin(2 * np.pi * f * t + rng.uniform(0, 6.3)) for f in pitches], axis=0)


def clicks(rng: np.random.Generator, n: int) -> np.ndarray:
    x = np.zeros(n)
    width = int(rng.choice([1, 2, 16, 64, 200]))
    rate = rng.choice([1, 2, 4, rng.uniform(0.5, 12)])
    if rng.random() < 0.6:  # a metronome
        times = np.arange(rng.uniform(0, min(1, n / RATE)), n / RATE, 1 / rate)
    else:
        times = rng.uniform(0, n / RATE, int(n / RATE * rate) + 1)
    pitch = rng.choice([0, 1000, 2000, rng.uniform(500, 3000)])
    shape = np.exp(-np.arange(width) / max(width / 4, 0.3)) * np.cos(2 * np.pi * pitch * np.arange(width) / RATE)
    for start in (times * RATE).astype(int):
        piece = x[start : start + width]
        piece += shape[: len(piece)]
    return x + rng.choice([0, 1e-5, 1e-3]) * rng.standard_normal(n)


def silence(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.full(n, rng.choice([0, 0, 1e-4, 0.1]))


def padded(rng: np.random.Generator, n: int) -> np.ndarray:
    x = np.zeros(n)
    length = int(min(rng.uniform(0.05, 1) * RATE, n - 1))
    start = rng.integers(0, n - length)
    x[start : start + length] = normal([rain, wind, drones, tones][rng.integers(4)](rng, length))
    return x


def loops(rng: np.random.Generator, n: int) -> np.ndarray:
    once = [rain, wind, drones, clicks, hum][rng.integers(5)](rng, int(rng.uniform(0.2, 3) * RATE))
    return np.tile(once, n // len(once) + 1)[:n]


def drones(rng: np.random.Generator, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    f0 = rng.choice([55, 110, rng.uniform(50, 300)])
    x = np.zeros(n)
    for h in range(1, int(rng.integers(3, 30))):
        swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.05, 2) * t + rng.uniform(0, 6.3))
        partial = np.sin(2 * np.pi * f0 * h * (1 + rng.normal(0, 0.002)) * t + rng.uniform(0, 6.3))
        x += partial * swell / h ** rng.uniform(0.3, 1.2)
    return x


KINDS: dict[str, Maker] = {
    "rain": rain,
    "wind": wind,
    "hum": hum,
    "tones": tones,
    "clicks": clicks,
    "silence": silence,
    "padded": padded,
    "loops": loops,
    "drones": drones,
}


def normal(x: np.ndarray, peak: float = 0.5) -> np.ndarray:
    return x / max(float(np.abs(x).max()), 1e-9) * peak


def draw(kind: str, rng: np.random.Generator, seconds: float, rate: int = 8000) -> np.ndarray:
    """One sound of a kind, float32 at ``rate``, at a random level."""
    x = KINDS[kind](rng, int(seconds * RATE))
    if kind != "silence":
        x = normal(x, 10 ** rng.uniform(-1.5, -0.05))
    return soxr.resample(x.astype(np.float32), RATE, rate)


def scene(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A lively recording at 32 kHz: filtered noise bursts and sweeps over a quiet background."""
    n = int(seconds * RATE)
    x = coloured(rng, n, rng.uniform(0.2, 0.8))
    x *= 0.05 / x.std()
    for _ in range(int(seconds * 3)):
        length = int(rng.uniform(0.05, 0.8) * RATE)
        start = int(rng.integers(0, max(1, n - length)))
        low = rng.uniform(150, 2500)
        band = scipy.signal.butter(2, [low, low * rng.uniform(1.2, 4)], "bandpass", fs=RATE, output="sos")
        event = scipy.signal.sosfilt(band, rng.standard_normal(length)) * np.exp(-np.linspace(0, 5, length))
        piece = x[start : start + length]
        piece += normal(event, rng.uniform(0.1, 0.8))[: len(piece)]
    return normal(x, 0.7).astype(np.float32)
