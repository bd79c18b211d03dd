"""The parts of synthesised sounds: noise, partials, envelopes, rhythms, echoes.  All waves are float32 [n]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

RATE = 32000
Wave = NDArray[np.float32]
Rng = np.random.Generator
TAU = 2 * np.pi


def samples(seconds: float) -> int:
    """How many samples last ``seconds``."""
    return max(1, round(seconds * RATE))


def band(low: float, high: float, order: int) -> NDArray[np.floating]:
    """A band-pass filter between two frequencies (Hz), as second-order sections."""
    return np.asarray(signal.butter(order, (low, high), "bandpass", fs=RATE, output="sos"))


def noise(rng: Rng, n: int, low: float, high: float) -> Wave:
    """Gaussian noise between two frequencies (Hz), RMS 1."""
    white = rng.standard_normal(n, dtype=np.float32)
    shaped = signal.sosfilt(band(low, min(high, RATE * 0.49), 2), white).astype(np.float32)
    return shaped / np.float32(np.sqrt(np.mean(shaped**2)) + 1e-9)


def drift(rng: Rng, n: int, depth: float, hz: float = 3.0) -> Wave:
    """A slow random curve around 1, which keeps steady sounds from being equal."""
    points = max(4, int(n / RATE * hz) + 4)
    curve = np.interp(np.linspace(0, points - 1, n), np.arange(points), rng.standard_normal(points))
    return np.asarray(1 + depth * curve, np.float32)


def harmonics(rng: Rng, frequency: NDArray[np.floating], amplitudes: Sequence[float]) -> Wave:
    """Partials at multiples of ``frequency`` (Hz, one value a sample) with random phases."""
    phase = np.mod(np.cumsum(frequency, dtype=np.float64) / RATE, 1.0).astype(np.float32) * np.float32(TAU)
    out = np.zeros(len(phase), np.float32)
    for k, amplitude in enumerate(amplitudes, 1):
        out += np.float32(amplitude) * np.sin(k * phase + np.float32(rng.uniform(0, TAU)))
    return out


def partials(rng: Rng, n: int, frequencies: Sequence[float], decays: Sequence[float]) -> Wave:
    """Sinusoids (Hz) that decay with the given time constants (s), as in bells, wood and glass."""
    t = np.arange(n, dtype=np.float32) / np.float32(RATE)
    out = np.zeros(n, np.float32)
    for frequency, tau in zip(frequencies, decays, strict=True):
        wave = np.sin(np.float32(TAU * frequency) * t + np.float32(rng.uniform(0, TAU)))
        out += np.float32(rng.uniform(0.5, 1.0)) * wave * np.exp(-t / np.float32(tau))
    return out


def swell(n: int, attack_s: float, release_s: float) -> Wave:
    """An envelope that rises and falls linearly."""
    t = np.arange(n) / RATE
    rise = np.minimum(1, t / max(attack_s, 1e-4))
    return np.asarray(np.minimum(rise, np.minimum(1, (n / RATE - t) / max(release_s, 1e-4))), np.float32)


def ring_out(n: int, tau: float) -> Wave:
    """An envelope that decays with the time constant ``tau`` (s)."""
    return np.exp(-np.arange(n, dtype=np.float32) / np.float32(tau * RATE))


def add_at(seconds: float, times: Sequence[float], hits: Sequence[Wave]) -> Wave:
    """A wave of ``seconds`` with each hit added at its time (s)."""
    out = np.zeros(samples(seconds), np.float32)
    for time, hit in zip(times, hits, strict=True):
        start = max(0, int(time * RATE))
        part = hit[: max(0, len(out) - start)]
        out[start : start + len(part)] += part
    return out


def spread_times(rng: Rng, seconds: float, count: int, hit_s: float, loose: float = 0.25) -> list[float]:
    """Start times (s) of ``count`` occurrences that are spread about evenly."""
    room = max(0.0, seconds - hit_s)
    step = min(room / max(1, count - 1), 2.2 * hit_s + 0.3) if count > 1 else room * 0.3
    first = rng.uniform(0, max(0.0, room - step * (count - 1)) * 0.5 + 0.01)
    gap = max(0.0, step - hit_s)
    return [first + k * step + rng.uniform(-loose, loose) * gap for k in range(count)]


def regular_times(rng: Rng, seconds: float, per_second: float, loose: float = 0.03) -> list[float]:
    """Start times (s) of a sound that repeats at a steady rate."""
    times, now = [], rng.uniform(0, 0.5 / per_second)
    while now < seconds:
        times.append(now)
        now += (1 + loose * rng.standard_normal()) / per_second
    return times


def echo(rng: Rng, wave: Wave) -> Wave:
    """``wave`` with early reflections, as if the whole recording were made in one random room."""
    out = wave.copy()
    for gain in 0.55 * 0.82 ** np.arange(10):
        delay = samples(rng.uniform(0.003, 0.12))
        out[delay:] += np.float32(gain * rng.choice((-1.0, 1.0))) * wave[: len(wave) - delay]
    return out


def background(rng: Rng, n: int) -> Wave:
    """Background noise with a random spectral tilt, 38 to 46 dB below full scale, as every recording has it."""
    tilt = rng.uniform(0.6, 0.95)
    floor = signal.lfilter([1 - tilt], [1, -tilt], rng.standard_normal(n, dtype=np.float32))
    level = 10 ** (rng.uniform(-46, -38) / 20) / np.sqrt(np.mean(floor**2))
    return np.asarray(floor * level, np.float32) * drift(rng, n, 0.1, 1)
