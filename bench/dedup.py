"""Measures how well copies of sound are found, and that unrelated sounds are not matched.

Without ``--quick`` and with real recordings (EARSHOT_DATA names their folder, default ../shared/data) the bench
takes about half an hour.  Without them, sounds are synthesised.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import soxr

import bench.explained
import bench.recordings
from sharding.dedup.comparing import compare_waves
from sharding.dedup.fingerprint import RATE, fingerprint
from sharding.dedup.grouping import relations
from sharding.dedup.matching import find_matches
from sharding.dedup.waveform import align_and_compare
from sharding.schema import CATALOGUE, FACTS, FINGERPRINTS, MATCHES
from tests.sharding.dedup import hard_cases

STORED = 32000
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def real_clips(data: Path) -> list[dict[str, str]]:
    """One recording of each source that ``pairs.csv`` does not call a copy."""
    with (data / "audio/pairs.csv").open(newline="") as file:
        copies = {row["a"] for row in csv.DictReader(file) if row["kind"] != "esc50_same_freesound_id"}
    with (data / "audio/clips.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"] not in copies]
    seen: set[str] = set()
    found = []
    for row in rows:
        source = row["freesound_id"] or row["path"]
        if source not in seen and float(row["duration_s"] or 0) >= 5:
            seen.add(source)
            found.append(row)
    return found


def originals(data: Path | None, count: int, seconds: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Recordings at 32 kHz without silent ends: real ones, joined to reach a length, or synthetic scenes."""
    if data is None:
        return [hard_cases.scene(rng, seconds) for _ in range(count)]
    pool = real_clips(data)
    found: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    for number in rng.permutation(len(pool)):
        wave = decoded(data / "audio" / pool[number]["path"], STORED)[: int(seconds * STORED)]
        sounding = np.flatnonzero(np.abs(wave) > 1e-3)
        if len(sounding):
            wave = wave[sounding[0] : sounding[-1] + 1]
            parts.append(0.5 * wave / np.abs(wave).max())
        if sum(map(len, parts)) >= seconds * STORED:
            found.append(np.concatenate(parts)[: int(seconds * STORED)])
            parts = []
        if len(found) == count:
            break
    return found


def decoded(path: Path, rate: int) -> np.ndarray:
    wave, native = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(wave.mean(axis=1), native, rate)


def coded(form: str, subtype: str, level: float, rate: int = STORED) -> Change:
    def change(wave: np.ndarray, _: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        sound = soxr.resample(wave, STORED, rate) if rate != STORED else wave
        soundfile.write(file, sound, rate, format=form, subtype=subtype, compression_level=level)
        file.seek(0)
        back = soundfile.read(file, dtype="float32")[0]
        return soxr.resample(back, rate, STORED) if rate != STORED else back

    return change


def gained(decibel: float) -> Change:
    return lambda wave, _: np.round(np.clip(wave * 10 ** (decibel / 20), -1, 1) * 32767).astype(np.float32) / 32767


def through(rate: int) -> Change:
    return lambda wave, _: soxr.resample(soxr.resample(wave, STORED, rate), rate, STORED)


def noisy(decibel: float) -> Change:
    def change(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(len(wave)).astype(np.float32)
        return wave + noise * wave.std() * np.float32(10 ** (-decibel / 20))

    return change


def faded(wave: np.ndarray, _: np.random.Generator) -> np.ndarray:
    ramp = np.minimum(1, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / STORED)
    return (wave * ramp).astype(np.float32)


def one_channel(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The left channel of a stereo recording whose mean is ``wave``; the side has a third of its level."""
    side = hard_cases.coloured(rng, len(wave), 0.5)
    return wave + (side * wave.std() / side.std() / 3).astype(np.float32)


def faster(percent: float) -> Change:
    return lambda wave, _: soxr.resample(wave, STORED * (1 + percent / 100), STORED)


def matrix() -> Iterator[tuple[str, str, Change, float]]:
    """Every condition of the robustness table: (group, condition, change, seconds of excerpt)."""

    def same(wave: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return wave

    for seconds in (1, 2, 3, 5, 10, 30):
        yield "excerpt, lossless", f"{seconds} s", same, seconds
    for seconds in (1, 2, 3, 5):
        yield "excerpt, MP3", f"{seconds} s", coded("MP3", "MPEG_LAYER_III", 0.5), seconds
    for level in (0.0, 0.5, 0.9):
        yield "MP3, worse with level", f"level {level}", coded("MP3", "MPEG_LAYER_III", level), 3
        yield "Vorbis, worse with level", f"level {level}", coded("OGG", "VORBIS", level, 44100), 3
    yield "Opus", "48 kHz", coded("OGG", "OPUS", 0.5, 48000), 3
    for decibel in (-20, -12, -6, 3, 6):
        yield "gain, 16 bits, clipped", f"{decibel:+d} dB", gained(decibel), 3
    for rate in (8000, 11025, 16000, 22050, 44100, 48000):
        yield "sample rate", f"{rate} Hz", through(rate), 3
    for decibel in (30, 20, 10):
        yield "white noise", f"{decibel} dB", noisy(decibel), 3
    yield "one channel of two", "left", one_channel, 3
    yield "polarity and offset", "inverted, +0.1", lambda wave, _: 0.1 - 0.8 * wave, 3
    yield "fades", "1 s in and out", faded, 5
    for percent in (0.01, 0.1, 0.5, 1.0, 3.0):
        yield "speed", f"{percent:+} %", faster(percent), 10


def run_condition(waves: list[np.ndarray], change: Change, seconds: float, rng: np.random.Generator) -> dict:
    """Match originals and one changed excerpt of each, all against all: recall, false pairs, error of the offset."""
    clips: dict[str, np.ndarray] = {}
    starts: dict[str, float] = {}
    for number, wave in enumerate(waves):
        length = min(int(seconds * STORED), len(wave))
        start = int(rng.integers(0, len(wave) - length + 1))
        clips[f"original/{number:04d}"] = soxr.resample(wave, STORED, RATE)
        clips[f"copy/{number:04d}"] = soxr.resample(change(wave[start : start + length], rng), STORED, RATE)
        starts[f"{number:04d}"] = start / STORED
    related = relations(matched(clips))
    found = {(r.a, r.b): r for r in related if r.by_waveform == "same"}
    undecided = {(r.a, r.b) for r in related if r.by_waveform == "undecided"}
    planted = {(f"copy/{n}", f"original/{n}"): -start for n, start in starts.items()}
    hits = [found[pair].offset_s - offset for pair, offset in planted.items() if pair in found]
    return {
        "recall": len(hits) / len(planted),
        "undecided": len(undecided & set(planted)) / len(planted),
        "within_20ms": float(np.mean(np.abs(hits) <= 0.02)) if hits else 0.0,
        "false": len(set(found) - set(planted)),
        "pairs": len(clips) * (len(clips) - 1) // 2 - len(planted),
    }


def matched(clips: dict[str, np.ndarray]) -> pa.Table:
    """MATCHES of waves at 8 kHz by clip_id, as a build would find them."""
    ids = list(clips)
    prints = [fingerprint(clips[clip_id], RATE) for clip_id in ids]
    table = pa.table(
        {"clip_id": ids, "codes": [p.codes.tobytes() for p in prints], "flags": [p.flags.tobytes() for p in prints]},
        FINGERPRINTS,
    )
    facts = pa.Table.from_pylist([{"clip_id": c, "duration_s": len(w) / RATE} for c, w in clips.items()], FACTS)

    def wave(clip_id: str, start_s: float, duration_s: float, rate: int = RATE) -> np.ndarray:
        start = round(start_s * RATE)
        part = clips[clip_id][start : start + round(duration_s * RATE)]
        return part if rate == RATE else soxr.resample(part, RATE, rate)

    catalogue = pa.Table.from_pylist([{"clip_id": c} for c in ids], CATALOGUE)
    return find_matches(catalogue, facts, table, wave, MATCHES.empty_table())


def robustness(waves: list[np.ndarray], quick: bool) -> dict[str, float]:
    print(f"{'change':26} {'condition':16} {'recall':>7} {'undecided':>9} {'<=20 ms':>8} {'false':>6} {'pairs':>8}")
    false = pairs = 0
    result = {}
    for row, (group, condition, change, seconds) in enumerate(matrix()):
        if quick and row % 4 != 2:
            continue
        figures = run_condition(waves, change, seconds, np.random.default_rng(row))
        false, pairs = false + figures["false"], pairs + figures["pairs"]
        result[f"recall: {group}, {condition}"] = round(figures["recall"], 4)
        print(
            f"{group:26} {condition:16} {figures['recall']:7.3f} {figures['undecided']:9.3f} "
            f"{figures['within_20ms']:8.3f} {figures['false']:6d} {figures['pairs']:8,d}",
            flush=True,
        )
    print(f"false pairs: {false} of {pairs:,}")
    return result | {"false": false, "pairs": pairs}


def known_pairs(data: Path) -> dict[str, float]:
    """The outcomes of the pairs of ``pairs.csv``, by fingerprints and waveform."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    with (data / "audio/pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            a, b = (decoded(data / "audio" / row[name], RATE) for name in ("a", "b"))
            table = compare_waves(a, b)
            relation = relations(table)[0]
            counts[row["kind"], relation.by_waveform] += 1
            if row["kind"] == "esc50_same_freesound_id" and relation.by_waveform == "same":
                print(f"  shared sound: {row['a']} {row['b']} at {relation.offset_s:.3f} s, {relation.overlap_s:.2f} s")
    kinds = sorted({kind for kind, _ in counts})
    for kind in kinds:
        print(f"  {kind:46}", {o: counts[kind, o] for o in ("same", "undecided", "different")})
    return {f"{kind}: same": counts[kind, "same"] for kind in kinds}


def explained_encodings(data: Path) -> dict[str, float]:
    """For known recordings in two encodings: how many are one interval by the waveform, and how many are explained."""
    with (data / "audio/pairs.csv").open(newline="") as file:
        pairs = [row for row in csv.DictReader(file) if row["kind"] == "esc10_ogg44k__esc50_flac16k"]
    waves = ([decoded(data / "audio" / row[name], bench.explained.RATE) for name in ("a", "b")] for row in pairs)
    same, explained = (sum(each) for each in zip(*(bench.explained.judged(a, b) for a, b in waves), strict=True))
    print(f"  {len(pairs)} recordings in two encodings: {same} are one interval, {explained} of them explained")
    return {"encodings explained": explained, "encodings of one interval": same}


def strangers(pairs: int) -> dict[str, int]:
    """Compare unrelated pairs of each hard kind at their best alignment, which is harder than a build does it."""
    result = {}
    for kind in hard_cases.KINDS:
        rng = np.random.default_rng(sum(map(ord, kind)))
        outcomes: collections.Counter[str] = collections.Counter()
        strongest = 0.0
        for _ in range(pairs):
            a, b = (hard_cases.draw(kind, rng, rng.uniform(2, 5)) for _ in range(2))
            verdict = align_and_compare(a, b, -6, 6)
            outcomes[verdict.outcome] += 1
            strongest = max(strongest, verdict.evidence)
        print(f"  {kind:8} {dict(outcomes)}, strongest evidence {strongest:.1f} nats", flush=True)
        result[f"false merges: {kind}"] = outcomes["same"]
    return result


def explained(data: Path | None, quick: bool) -> dict[str, float]:
    """Copies and mixes of recordings that no threshold was chosen on (the half of the sources that is held out)."""
    waves = bench.explained.originals(data, half=1, count=4 if quick else 24)
    changes: dict[str, Change] = {f"gain {decibel:+d} dB": gained(decibel) for decibel in (-20, -6, 3, 6, 12)}
    changes |= {f"{rate} Hz": through(rate) for rate in (8000, 11025, 16000, 22050, 44100, 48000)}
    changes |= {
        "noise at 30 dB": noisy(30),
        "noise at 40 dB": noisy(40),
        "1 s fades": faded,
        "left channel": one_channel,
    }
    changes |= {"inverted, +0.1": lambda wave, _: 0.1 - 0.8 * wave, "cut later": bench.explained.begun_later}
    middle = coded("MP3", "MPEG_LAYER_III", 0.5)
    changes |= {"MP3 of 8 kHz": lambda wave, rng: middle(through(8000)(wave, rng), rng)}
    changes |= {"Vorbis of MP3": lambda wave, rng: coded("OGG", "VORBIS", 0.5, 44100)(middle(wave, rng), rng)}
    after: dict[str, Change] = {"nothing": lambda wave, _: wave, "MP3, middle": middle}
    after |= {"Vorbis, middle": coded("OGG", "VORBIS", 0.5, 44100)}
    return bench.explained.table(waves, bench.explained.copies(coded, changes), after, 1 if quick else 2)


def speed() -> float:
    wave = hard_cases.scene(np.random.default_rng(0), 10)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            fingerprint(wave, STORED)
        best = max(best, 100 / (time.process_time() - start))
    print(f"fingerprinting at 32 kHz: {best:,.0f} times real time on one core, resampling included")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, few sounds")
    parser.add_argument(
        "--only", choices=("matrix", "pairs", "strangers", "speed", "explained", "long"), help="one part"
    )
    args = parser.parse_args()
    folder = Path(os.environ.get("EARSHOT_DATA", Path(__file__).parent / "../../shared/data")).resolve()
    data = folder if (folder / "audio/clips.csv").exists() and not args.quick else None
    result: dict[str, float] = {}
    wanted = (args.only,) if args.only else ("speed", "strangers", "pairs", "explained", "matrix", "long")
    if "speed" in wanted:
        result["times real time"] = round(speed())
    if "strangers" in wanted:
        print("\nunrelated pairs, best alignment anywhere")
        result |= strangers(5 if args.quick else 1000)
    if "pairs" in wanted and data:
        print("\nknown pairs")
        result |= known_pairs(data)
    if "explained" in wanted:
        print("\ncopies and mixes: may one of the two be removed?")
        result |= explained(data, args.quick)
        result |= explained_encodings(data) if data else {}
    if "matrix" in wanted:
        waves = originals(data, 6 if args.quick else 40, 15 if args.quick else 40, np.random.default_rng(0))
        print(f"\n{len(waves)} {'real' if data else 'synthetic'} originals and a changed excerpt of each")
        result |= robustness(waves, args.quick)
    if "long" in wanted:
        print("\nlong recordings that hold a protected sound, built with --leaks trim")
        waves = originals(data, 6 if args.quick else 40, 15 if args.quick else 60, np.random.default_rng(1))
        result |= bench.recordings.long_recordings(waves, 0.1 if args.quick else 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
