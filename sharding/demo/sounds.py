"""Sounds of the demo corpus; all of them are computed.

A sound is a function ``(rng, seconds, shade, count) -> float32 [n]`` at ``RATE``.  ``shade`` (0 or 1) chooses the
adjective that captions use (small or large dog, slow or fast siren), and ``count`` says how often a countable sound
occurs.  Pitch, tempo, timbre and timing are drawn from ``rng``, so that no two sounds are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import signal

from sharding.demo.waves import (
    RATE,
    TAU,
    Rng,
    Wave,
    add_at,
    band,
    drift,
    harmonics,
    noise,
    partials,
    regular_times,
    ring_out,
    samples,
    spread_times,
    swell,
)


@dataclass(frozen=True)
class Sound:
    """A class of sounds: its synthesis, whether its occurrences can be counted, and its shortest duration (s)."""

    make: Callable[[Rng, float, int, int], Wave]
    countable: bool = False
    shortest_s: float = 1.5


def dog(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(650, 950) if shade == 0 else rng.uniform(180, 300)
    length = rng.uniform(0.13, 0.2) if shade == 0 else rng.uniform(0.22, 0.34)
    hits = []
    for _ in range(count):
        n = samples(length * rng.uniform(0.9, 1.1))
        bend = base * rng.uniform(0.93, 1.07) * (1.25 - 0.55 * np.linspace(0, 1, n) ** 1.5)
        voice = harmonics(rng, bend, [1, 0.8, 0.9, 0.5, 0.4, 0.25, 0.15])
        hits.append((voice + 0.5 * noise(rng, n, base, base * 6)) * swell(n, 0.015, length * 0.6))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


def cat(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(700, 900) if shade == 0 else rng.uniform(400, 520)
    length = rng.uniform(0.55, 0.9)
    hits = []
    for _ in range(count):
        n = samples(length * rng.uniform(0.9, 1.1))
        t = np.linspace(0, 1, n)
        bend = base * rng.uniform(0.95, 1.05) * (0.8 + 0.5 * np.sin(np.pi * t**0.7)) * drift(rng, n, 0.01, 20)
        hits.append(harmonics(rng, bend, [0.6, 1, 0.9, 0.3, 0.3]) * swell(n, 0.12, 0.3))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


def rain(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    hiss = noise(rng, n, 1200, 14000) * drift(rng, n, 0.08)
    drops = np.zeros(n, np.float32)
    hits = rng.integers(0, n, int(seconds * (30 if shade == 0 else 220)))
    drops[hits] = rng.exponential(1.0, len(hits))
    grain = signal.lfilter([1.0], [1, -1.6, 0.8], drops).astype(np.float32)
    return hiss * np.float32(0.12 if shade == 0 else 0.6) + grain * np.float32(0.35)


def thunder(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    rumble = noise(rng, n, 25, rng.uniform(110, 180)) * np.abs(drift(rng, n, 0.7, 6))
    start = samples(seconds * rng.uniform(0.02, 0.15))
    envelope = np.zeros(n, np.float32)
    envelope[start:] = ring_out(n - start, rng.uniform(0.9, 1.6))
    out = rumble * envelope
    if shade == 1:  # it cracks before it rumbles
        crack = noise(rng, samples(0.25), 300, 6000) * ring_out(samples(0.25), 0.05)
        out[start : start + len(crack)] += 1.6 * crack[: n - start]
    return out


def wind(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    gusts = np.clip(drift(rng, n, 0.55, 1.2), 0.1, 2.5)
    low = noise(rng, n, 120, 500) * gusts
    if shade == 1:  # it howls
        howl = harmonics(rng, rng.uniform(420, 620) * (0.75 + 0.25 * gusts), [1.0, 0.2]) * gusts * drift(rng, n, 0.3, 9)
        return low * np.float32(0.6) + 0.8 * howl
    return low


def waves(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    period = rng.uniform(2.6, 3.4) if shade == 0 else rng.uniform(1.3, 1.7)
    t = np.arange(n, dtype=np.float32) / RATE
    lap = (0.5 - 0.5 * np.cos(TAU * (t / period + rng.uniform()))) ** 3
    return noise(rng, n, 300, 5000) * np.asarray(0.06 + lap, np.float32)


def engine(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    turn = rng.uniform(28, 40) if shade == 0 else rng.uniform(75, 110)
    course = turn * drift(rng, n, 0.04, 2)
    buzz = harmonics(rng, course, [1, 0.8, 0.9, 0.6, 0.6, 0.4, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1])
    return np.asarray(buzz + noise(rng, n, 60, 900) * (0.4 + 0.3 * np.tanh(buzz)), np.float32)


def siren(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    per_second = rng.uniform(0.3, 0.45) if shade == 0 else rng.uniform(1.8, 2.8)
    t = np.arange(n) / RATE
    sweep = 0.5 + 0.5 * np.sin(TAU * (per_second * t + rng.uniform()))
    course = (rng.uniform(550, 700) + rng.uniform(600, 800) * sweep) * drift(rng, n, 0.02, 4)
    return harmonics(rng, course, [1, 0.35, 0.3, 0.12]) * drift(rng, n, 0.1, 3)


def horn(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(370, 450) if shade == 0 else rng.uniform(150, 200)
    length = rng.uniform(0.4, 0.6)
    hits = []
    for _ in range(count):
        n = samples(length * rng.uniform(0.85, 1.15))
        low = harmonics(rng, base * drift(rng, n, 0.004, 8), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
        high = harmonics(rng, base * 1.26 * drift(rng, n, 0.004, 8), [1, 0.9, 0.8, 0.6, 0.5, 0.4])
        hits.append((low + high) * swell(n, 0.02, 0.05))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


def bird(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    times = regular_times(rng, seconds, rng.uniform(1.6, 2.4) if shade == 0 else rng.uniform(6, 8), 0.3)
    centre, length = rng.uniform(3200, 5200), rng.uniform(0.05, 0.11)
    shape = rng.choice([-1.0, 1.0])
    hits = []
    for _ in times:
        n = samples(length * rng.uniform(0.7, 1.4))
        t = np.linspace(-1, 1, n)
        course = centre * rng.uniform(0.85, 1.15) * (1 + 0.22 * shape * t + 0.08 * np.sin(TAU * 3 * t))
        hits.append(harmonics(rng, course, [1, 0.12]) * swell(n, 0.012, 0.03) * np.float32(rng.uniform(0.5, 1)))
    return add_at(seconds, times, hits)


def crickets(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    t = np.arange(n, dtype=np.float32) / RATE
    carrier = harmonics(rng, rng.uniform(6200, 8200) * drift(rng, n, 0.004, 20), [1])
    trill = np.clip(np.sin(np.float32(TAU * rng.uniform(35, 55)) * t), 0, 1)
    burst = np.sin(TAU * rng.uniform(1.2, 2.2) * t + rng.uniform(0, TAU)) > (-2 if shade == 0 else 0.1)
    return np.asarray(carrier * trill * burst * drift(rng, n, 0.1, 5), np.float32)


def frog(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    length = rng.uniform(0.32, 0.48)
    rattle = rng.uniform(38, 50) if shade == 0 else rng.uniform(16, 22)
    formant = rng.uniform(900, 1400)
    hits = []
    for _ in range(count):
        span = length * rng.uniform(0.9, 1.1)
        beat = partials(rng, samples(0.03), (formant, formant * 1.9, formant * 0.5), (0.006, 0.004, 0.008))
        times = regular_times(rng, span, rattle, 0.04)
        hits.append(add_at(span, times, [beat] * len(times)))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


def footsteps(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    times = regular_times(rng, seconds, rng.uniform(1.5, 1.9) if shade == 0 else rng.uniform(2.8, 3.4), 0.04)
    body, hits = rng.uniform(80, 150), []
    for _ in times:
        n = samples(0.16)
        thud = partials(rng, n, (body * rng.uniform(0.9, 1.1), body * 2.3), (0.03, 0.02))
        scrape = noise(rng, n, 700, 3500) * ring_out(n, 0.035)
        hits.append((thud + 0.5 * scrape) * np.float32(rng.uniform(0.7, 1)))
    return add_at(seconds, times, hits)


def knocking(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    body = rng.uniform(480, 640) if shade == 0 else rng.uniform(170, 240)
    gap, hits = rng.uniform(0.16, 0.26), []
    for _ in range(count):
        wood = partials(rng, samples(0.15), (body, body * 1.58, body * 2.7), (0.03, 0.02, 0.012))
        hits.append(wood * np.float32(rng.uniform(0.8, 1)))
    first = rng.uniform(0, max(0.01, seconds - gap * count - 0.2))
    return add_at(seconds, [first + gap * k * rng.uniform(0.97, 1.03) for k in range(count)], hits)


def clock(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    times = regular_times(rng, seconds, rng.uniform(1.0, 1.3) if shade == 0 else rng.uniform(3.6, 4.6), 0.004)
    body = rng.uniform(1500, 2100)
    hits = [
        partials(rng, samples(0.04), (body * pitch, body * 1.7 * pitch, body * 2.6), (0.006, 0.004, 0.003))
        for _, pitch in zip(times, (1.0, 0.82) * len(times), strict=False)
    ]
    return add_at(seconds, times, hits)


def typing(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    times = regular_times(rng, seconds, rng.uniform(3, 4) if shade == 0 else rng.uniform(9, 12), 0.45)
    times = [time for time in times if time >= 0]
    n, hits = samples(0.05), []
    shape = band(1500, 9000, 2)
    for _ in times:
        click = signal.sosfilt(shape, rng.standard_normal(n, dtype=np.float32)).astype(np.float32) * ring_out(n, 0.006)
        hits.append(
            (click + 0.6 * partials(rng, n, (rng.uniform(300, 500),), (0.012,))) * np.float32(rng.uniform(0.5, 1))
        )
    return add_at(seconds, times, hits)


def bell(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(900, 1300) if shade == 0 else rng.uniform(220, 340)
    length = min(2.2, seconds / max(1, count) + 0.6)
    ratios = (0.5, 1.0, 1.19, 1.5, 2.0, 2.67, 3.01)
    hits = []
    for _ in range(count):
        n = samples(length)
        strike = partials(rng, n, [base * r for r in ratios], [0.9 / r**0.7 for r in ratios])
        hits.append(strike * np.float32(rng.uniform(0.85, 1)))
    return add_at(seconds, spread_times(rng, seconds, count, min(length, 0.7)), hits)


def telephone(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(1300, 1700)
    length = rng.uniform(0.55, 0.75)
    hits = []
    for _ in range(count):
        n = samples(length)
        t = np.arange(n, dtype=np.float32) / RATE
        rate = rng.uniform(18, 24) if shade == 0 else rng.uniform(8, 11)
        gate = (np.sin(np.float32(TAU * rate) * t) > 0).astype(np.float32)
        first = harmonics(rng, np.full(n, base), [1, 0.4, 0.2])
        second = harmonics(rng, np.full(n, base * 1.25), [1, 0.4, 0.2])
        hits.append((first * gate + second * (1 - gate)) * swell(n, 0.01, 0.04))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


def alarm(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(950, 1250)
    times = regular_times(rng, seconds, rng.uniform(1.6, 2.1) if shade == 0 else rng.uniform(4.5, 6), 0.003)
    hits = []
    for _ in times:
        n = samples(rng.uniform(0.09, 0.11))
        hits.append(harmonics(rng, np.full(n, base), [1, 0, 0.8, 0, 0.5]) * swell(n, 0.004, 0.004))
    return add_at(seconds, times, hits)


def drops(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    times = regular_times(rng, seconds, rng.uniform(1.0, 1.5) if shade == 0 else rng.uniform(4, 5.5), 0.25)
    times = [time for time in times if time >= 0]
    hits = []
    for _ in times:
        n = samples(0.12)
        t = np.arange(n) / RATE
        course = rng.uniform(700, 1500) * (1 + rng.uniform(6, 10) * t)
        hits.append(harmonics(rng, course, [1, 0.1]) * ring_out(n, 0.025) * np.float32(rng.uniform(0.6, 1)))
    return add_at(seconds, times, hits)


def hum(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    n = samples(seconds)
    base = (rng.uniform(48, 53) if shade == 0 else rng.uniform(115, 125)) * drift(rng, n, 0.003, 3)
    steady = harmonics(rng, base, rng.uniform(0.2, 1, 5).tolist()) * drift(rng, n, 0.06, 2)
    return steady + np.float32(0.1) * noise(rng, n, 60, 500)


def laughter(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(260, 340) if shade == 0 else rng.uniform(115, 150)
    times = regular_times(rng, seconds, rng.uniform(4.2, 5.2), 0.05)
    times = [time for k, time in enumerate(times) if time >= 0 and k % 8 < 6]
    centres = (rng.uniform(680, 850), rng.uniform(1100, 1400), rng.uniform(2400, 2900))
    formants = [band(0.94 * centre, 1.06 * centre, 1) for centre in centres]
    hits = []
    for _ in times:
        n = samples(0.13)
        course = base * rng.uniform(0.92, 1.1) * np.linspace(1.15, 0.85, n) * drift(rng, n, 0.01, 30)
        voice = harmonics(rng, course, [0.8**k for k in range(14)])
        breath = 0.4 * noise(rng, n, 800, 4000)
        sound = sum(signal.sosfilt(shape, voice + breath) for shape in formants)
        hits.append(np.asarray(sound * swell(n, 0.025, 0.06), np.float32))
    return add_at(seconds, times, hits)


def saw(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    per_second = rng.uniform(0.9, 1.2) if shade == 0 else rng.uniform(2.2, 2.8)
    n = samples(seconds)
    t = np.arange(n, dtype=np.float32) / RATE
    stroke = np.abs(np.sin(np.pi * per_second * t * 2 + rng.uniform(0, TAU)))
    teeth = 0.5 + 0.5 * np.sign(np.sin(np.cumsum(TAU * 55 * (0.6 + 0.7 * stroke)) / RATE))
    return np.asarray(noise(rng, n, 1500, 7000) * stroke**0.7 * teeth, np.float32)


def whistle(rng: Rng, seconds: float, shade: int, count: int) -> Wave:
    base = rng.uniform(1400, 2100)
    length = rng.uniform(0.5, 0.8)
    hits = []
    for _ in range(count):
        n = samples(length * rng.uniform(0.85, 1.15))
        t = np.linspace(0, 1, n)
        bend = (0.75 + 0.55 * t) if shade == 0 else (1.3 - 0.55 * t)
        tone = harmonics(rng, base * rng.uniform(0.97, 1.03) * bend, [1, 0.08])
        hits.append((tone + 0.08 * noise(rng, n, 1000, 5000)) * swell(n, 0.05, 0.08))
    return add_at(seconds, spread_times(rng, seconds, count, length), hits)


SOUNDS: dict[str, Sound] = {
    "alarm": Sound(alarm),
    "bell": Sound(bell, countable=True),
    "bird": Sound(bird),
    "cat": Sound(cat, countable=True),
    "clock": Sound(clock, shortest_s=2.5),
    "crickets": Sound(crickets),
    "dog": Sound(dog, countable=True),
    "drops": Sound(drops, shortest_s=2.5),
    "engine": Sound(engine),
    "footsteps": Sound(footsteps, shortest_s=2.0),
    "frog": Sound(frog, countable=True),
    "horn": Sound(horn, countable=True),
    "hum": Sound(hum),
    "knocking": Sound(knocking, countable=True),
    "laughter": Sound(laughter),
    "rain": Sound(rain),
    "saw": Sound(saw),
    "siren": Sound(siren, shortest_s=3.0),
    "telephone": Sound(telephone, countable=True),
    "thunder": Sound(thunder, shortest_s=2.5),
    "typing": Sound(typing),
    "waves": Sound(waves, shortest_s=4.0),
    "whistle": Sound(whistle, countable=True),
    "wind": Sound(wind, shortest_s=2.0),
}


def make_sound(rng: Rng, name: str, seconds: float, shade: int, count: int, far: bool) -> Wave:
    """One event [n] at ``RATE``, faded at both ends: peak at most 1, RMS at most 0.12; quieter and duller if far."""
    wave = SOUNDS[name].make(rng, seconds, shade, count)
    fade = min(len(wave) // 4, samples(0.03))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    wave[:fade] *= ramp
    wave[-fade:] *= ramp[::-1]
    if far:
        sos = signal.butter(1, 2500, "lowpass", fs=RATE, output="sos")
        wave = signal.sosfilt(sos, wave).astype(np.float32)
    # A real sound is not as smooth as a formula: its level flutters, and there is noise around it.
    wave *= np.maximum(drift(rng, len(wave), 0.25, 25), 0.1)
    wave += np.float32(0.12) * noise(rng, len(wave), 250, 2500) * np.abs(wave)
    loudest, rms = np.abs(wave).max() + 1e-9, np.sqrt(np.mean(wave**2)) + 1e-9
    return wave * np.float32(min(1 / loudest, 0.12 / rms) * (0.25 if far else 1.0))
