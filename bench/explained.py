"""Pairs of recordings for `bench.dedup --only explained`: true copies, and mixes that hold a further sound.

A copy went through codecs, resamplers, gain, fades or noise, and holds nothing that the original does not hold.  A mix
is the original and something else: events of several lengths at several levels, music or rain under all of it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import scipy.signal
import soundfile
import soxr

from sharding.dedup.explanation import RATE, excesses
from sharding.dedup.fingerprint import RATE as LOW_RATE
from sharding.dedup.waveform import align_and_compare
from tests.sharding.dedup import hard_cases

SECONDS = 5.0
_AAC_FRAME = 1024
LEVELS = (-20, -15, -10, -5, 0, 6, 20)
CODED_LEVELS = (-10, -5, 0)  # of mixes that went through a codec
QUIETEST = 10 ** (-30 / 20)  # of a recording's RMS: the level of a place that is quieter is taken to be this
Sound = np.ndarray
Change = Callable[[Sound, np.random.Generator], Sound]


def originals(data: Path | None, half: int, count: int) -> list[Sound]:
    """Recordings of 5 s of one half of the sources (the hash of a source's name decides); else synthetic scenes."""
    if data is None:
        return [hard_cases.scene(np.random.default_rng([half, k]), SECONDS) for k in range(count)]
    with (data / "audio/clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sources: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row["freesound_id"] or row["path"]
        # the recordings at 16 kHz come in only where no wider one of the source is there
        if float(row["duration_s"] or 0) >= SECONDS and (name not in sources or row["set"] != "esc50_16k"):
            sources[name] = row
    order = sorted((hashlib.sha256(name.encode()).digest(), row["path"]) for name, row in sources.items())
    found: list[Sound] = []
    for digest, path in order:
        if digest[0] % 2 != half or len(found) == count:
            continue
        with soundfile.SoundFile(data / "audio" / path) as opened:
            opened.seek(max(0, (opened.frames - int(SECONDS * opened.samplerate)) // 2))
            wave = opened.read(int(SECONDS * opened.samplerate), dtype="float32", always_2d=True).mean(axis=1)
            wave = soxr.resample(wave, opened.samplerate, RATE)
        if wave.std() > 1e-3:
            found.append(stored(wave * min(1.0, 0.7 / np.abs(wave).max())))
    return found


def stored(wave: Sound) -> Sound:
    """The sound in the form in which shards hold it: 16 bits, clipped at full scale."""
    return (np.round(np.clip(wave, -1, 1) * 32767) / 32767).astype(np.float32)


def copies(coded: Callable[..., Change], others: dict[str, Change]) -> Iterator[tuple[str, str, Change]]:
    """(kind, condition, change) of every way to copy a recording; ``coded`` and ``others`` are the matrix's."""
    for level in (0.0, 0.5, 0.9):
        yield "MP3", f"level {level}", coded("MP3", "MPEG_LAYER_III", level)
        yield "Vorbis", f"level {level}", coded("OGG", "VORBIS", level, 44100)
    for level in (0.0, 0.5):
        yield "Opus", f"level {level}", coded("OGG", "OPUS", level, 48000)
    for kilobits in (96, 64):
        yield "AAC", f"{kilobits} kbit/s", through_aac(kilobits)
    yield from (("other", name, change) for name, change in others.items())


def through_aac(kilobits: int) -> Change:
    """FFmpeg's AAC; no threshold was chosen by it."""

    def change(wave: Sound, _: np.random.Generator) -> Sound:
        file = io.BytesIO()
        with av.open(file, "w", format="adts") as written:
            stream = written.add_stream("aac", rate=RATE, layout="mono")
            stream.bit_rate = 1000 * kilobits
            padded = np.pad(wave, (0, 3 * _AAC_FRAME)).astype(np.float32)
            for start in range(0, len(padded), _AAC_FRAME):
                frame = av.AudioFrame.from_ndarray(padded[None, start : start + _AAC_FRAME], "fltp", "mono")
                frame.sample_rate = RATE
                written.mux(stream.encode(frame))
            written.mux(stream.encode(None))
        file.seek(0)
        with av.open(file, "r") as opened:
            decoded = np.concatenate([frame.to_ndarray()[0] for frame in opened.decode(audio=0)])
        return decoded[_AAC_FRAME : _AAC_FRAME + len(wave)]  # without the encoder's delay

    return change


def begun_later(wave: Sound, rng: np.random.Generator) -> Sound:
    """The same recording cut 0.03 to 0.1 s later, by a fraction of a sample too."""
    finer = soxr.resample(wave, RATE, 3 * RATE)[int(rng.integers(3 * RATE // 33, 3 * RATE // 10)) :]
    return soxr.resample(finer, 3 * RATE, RATE)


def rms(wave: Sound) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0


def real_event(rng: np.random.Generator, n: int, pool: list[Sound]) -> Sound:
    """The loudest ``n`` samples of another recording, with ends of 10 ms."""
    wave = pool[int(rng.integers(len(pool)))]
    sums = np.cumsum(np.pad(wave.astype(np.float64) ** 2, (1, 0)))
    start = int(np.argmax(sums[n:] - sums[:-n])) if n < len(wave) else 0
    return shaped(wave[start : start + n])


def shaped(wave: Sound) -> Sound:
    edge = min(RATE // 100, len(wave) // 4)
    ramp = np.minimum(1, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / max(edge, 1))
    return (wave * ramp).astype(np.float32)


def bird(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    """Chirps that sweep between 4.5 and 7.5 kHz."""
    t = np.arange(n) / RATE
    pitch = 6000 + 1400 * np.sin(2 * np.pi * rng.uniform(3, 15) * t + rng.uniform(0, 6.3))
    return shaped(np.sin(2 * np.pi * np.cumsum(pitch) / RATE).astype(np.float32))


def hiss(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    """A burst of noise above 4 kHz: steam, a spray."""
    high = scipy.signal.butter(4, [4500, rng.uniform(6000, 7800)], "bandpass", fs=RATE, output="sos")
    return shaped(scipy.signal.sosfilt(high, rng.standard_normal(n + RATE))[RATE:].astype(np.float32))


def thump(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    """A low tone or rumble that stays below 200 Hz."""
    t = np.arange(n) / RATE
    return shaped((np.sin(2 * np.pi * rng.uniform(60, 170) * t) * np.exp(-t / t[-1])).astype(np.float32))


def noise(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    return shaped(hard_cases.coloured(rng, n, rng.uniform(0, 0.6)).astype(np.float32))


def alike(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    """Made to sound like the recording it is mixed into: see ``mixed``."""
    return shaped(rng.standard_normal(n).astype(np.float32))


def music(rng: np.random.Generator, n: int, _: list[Sound]) -> Sound:
    """Notes of a few harmonics, four a second."""
    wave = np.zeros(n, np.float32)
    for start in range(0, n, RATE // 4):
        t = np.arange(min(RATE // 2, n - start)) / RATE
        pitch = 110 * 2 ** (rng.integers(0, 36) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 8))
        wave[start : start + len(t)] += (tone * np.exp(-4 * t)).astype(np.float32)
    return wave


EVENTS = {"real": real_event, "bird": bird, "hiss": hiss, "thump": thump, "noise": noise, "alike": alike}
BEDS = {"real": real_event, "music": music, "rain": lambda rng, n, _: hard_cases.rain(rng, n).astype(np.float32)}


def mixed(
    wave: Sound, event: Sound, start: int, level_db: float, rng: np.random.Generator, like_host: bool = False
) -> Sound:
    """``wave`` with an event from a sample on, at a level relative to the wave where the event sounds."""
    there = wave[start : start + len(event)]
    event = event[: len(there)]
    if like_host:
        magnitude = scipy.signal.savgol_filter(np.abs(np.fft.rfft(wave)), 501, 1).clip(1e-6)
        size = len(wave)
        turned = np.fft.rfft(np.pad(event, (0, size - len(event)))) * magnitude
        event = shaped(np.fft.irfft(turned, size)[: len(event)].astype(np.float32))
    local = max(rms(there), rms(wave) * QUIETEST)
    loud = event * (local * 10 ** (level_db / 20) / max(rms(event), 1e-9))
    result = wave.copy()
    result[start : start + len(event)] += loud
    peak = np.abs(result).max()
    return stored(result if peak <= 1 else result / peak)


def place(wave: Sound, n: int, where: str, rng: np.random.Generator) -> int:
    """A sample from which ``n`` are among the loudest, among the quietest, or any."""
    sums = np.cumsum(np.pad(wave.astype(np.float64) ** 2, (1, 0)))
    energy = (sums[n:] - sums[:-n])[:: RATE // 50]
    if where == "any" or len(energy) < 3:
        return int(rng.integers(0, len(wave) - n + 1))
    order = np.argsort(energy)
    part = order[-max(1, len(order) // 10) :] if where == "loud" else order[: max(1, len(order) // 10)]
    return int(part[rng.integers(len(part))]) * (RATE // 50)


def mixes(waves: list[Sound], rng: np.random.Generator, level_db: float) -> Iterator[tuple[str, Sound, Sound]]:
    """(kind, original, mix): an event of each kind, length and place, several events, each bed, all at one level."""

    def drawn() -> tuple[Sound, list[Sound]]:
        chosen = int(rng.integers(len(waves)))
        return waves[chosen], [other for number, other in enumerate(waves) if number != chosen]

    for kind, make in EVENTS.items():
        for seconds in (0.1, 0.3, 1.0, 2.0):
            for where in ("loud", "quiet", "any"):
                wave, pool = drawn()
                n = int(seconds * RATE)
                sound = make(rng, n, pool)
                yield (
                    f"event: {kind}",
                    wave,
                    mixed(wave, sound, place(wave, n, where, rng), level_db, rng, kind == "alike"),
                )
    for _ in range(6):
        wave, pool = drawn()
        mix = wave
        for _ in range(int(rng.integers(2, 6))):
            n = int(rng.choice([0.1, 0.3, 1.0]) * RATE)
            mix = mixed(mix, real_event(rng, n, pool), place(wave, n, "any", rng), level_db, rng)
        yield "two to five events", wave, mix
    for kind, make in BEDS.items():
        for _ in range(3):
            wave, pool = drawn()
            yield f"bed: {kind}", wave, mixed(wave, make(rng, len(wave), pool), 0, level_db, rng)


def judged(a: Sound, b: Sound) -> tuple[bool, bool]:
    """Whether today's waveform comparison finds one interval in both, and whether each explains the other as well."""
    low_a, low_b = (soxr.resample(sound, RATE, LOW_RATE) for sound in (a, b))
    verdict = align_and_compare(low_a, low_b, -0.15, 0.15)
    if verdict.outcome != "same" or verdict.overlap_s < 0.95 * max(len(a), len(b)) / RATE:
        return False, False
    begin = round(verdict.lag_s * RATE)
    return True, excesses(a[max(begin, 0) :], b[max(-begin, 0) :]) == (None, None)


def table(
    waves: list[Sound], ways: Iterator[tuple[str, str, Change]], coded_mixes: dict[str, Change], draws: int
) -> dict[str, float]:
    """Print how many copies may be removed as before, and how many mixes by mistake; the same as a dictionary."""
    result = {}
    print(f"{'copy':40} {'same interval':>14} {'explained':>10}   of {len(waves)}")
    for kind, condition, change in ways:
        pairs = [(wave, stored(change(wave, np.random.default_rng(number)))) for number, wave in enumerate(waves)]
        found = [judged(*pair) for pair in pairs]
        same, explained = (sum(each) for each in zip(*found, strict=True))
        result[f"copies explained: {kind}, {condition}"] = round(explained / max(same, 1), 3)
        print(f"{kind + ', ' + condition:40} {same:14} {explained:10}", flush=True)
    print(f"\n{'mix, then':22} {'level':>6} {'mixes':>6} {'same interval':>14} {'explained':>10}")
    for name, change in coded_mixes.items():
        for level_db in LEVELS if name == "nothing" else CODED_LEVELS:
            found, missed = [], []
            for draw in range(draws):
                rng = np.random.default_rng([draw + 2, level_db + 100])
                for kind, wave, mix in mixes(waves, rng, level_db):
                    found.append(judged(wave, stored(change(mix, rng))))
                    missed += [kind] * found[-1][1]
            same, explained = (sum(each) for each in zip(*found, strict=True))
            result[f"mixes explained: {name}, {level_db:+d} dB"] = explained
            print(
                f"{name:22} {level_db:+6d} {len(found):6} {same:14} {explained:10}  {dict(Counter(missed))}", flush=True
            )
    return result
