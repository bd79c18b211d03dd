"""Measures the loader in clips a second, for decoded audio and for masked mel batches, against other loaders.

The floor is the least work of any loader on one core: it decodes each clip, and for mel it computes one torch STFT and
one dense filter product.  For decoded audio, a second floor also reads each clip's file.  All loaders read the same
synthesised clips.  Peers that are not installed are named and left out (`make bench-peers` installs them in an
environment of their own).  What other programs do to the clock changes clips a second by several hundredths, so the
processor time of Earshot's workers is compared with the floor's as well.  The bench also measures how long each loader
takes to resume in the middle of an epoch, what shuffling costs in reads, and with --growth how the time to the first
batch and the memory grow with the manifest.

    python -m bench.loader [--quick] [--growth] [--clips N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.loading.clips import RATE, Clips, decode, floor, floor_from_files, no_tokens, synthesise
from bench.loading.growth import growth, shuffling
from bench.loading.peers import BATCH, Contender, Published, contenders
from sharding.audio import decode_segment
from sharding.shards.checksum import fast_checksum, is_changed
from training.data import AudioInput, DataSettings, FeatureExtractor, Loader, MaskingSettings, MixtureItem, Order
from training.data.buffers import keep_freed_memory
from training.data.sound.melbank import kaldi_bank

Run = Callable[[], object]
PLAIN = DataSettings(train=(MixtureItem("bench"),), batch_size=BATCH)
MASKED = replace(PLAIN, masking=MaskingSettings(time_masks=1, time_width=192, freq_masks=1, freq_width=48))
WAVES = AudioInput("samples", RATE, 10.0, 10.0, 30.0)
MEL = AudioInput("passt", RATE, 10.0, 10.0, 30.0)
# Memory of `bare_spectrogram`: eight blocks of 113 frames, and 104 bins
SPACE = (
    ("sound", 1, 321024),
    ("window", 1, 1024),
    ("cut", 113, 1024),
    ("power", 904, 513),
    ("imaginary", 113, 513),
    ("mel", 104, 904),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--growth", action="store_true", help="only growth: 1k, 100k and (not --quick) 10M rows")
    parser.add_argument("--clips", type=int)
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.growth:
        ratios = growth([1_000, 100_000] if args.quick else [1_000, 100_000, 500_000, 10_000_000])
    else:
        count, rounds = args.clips or (64 if args.quick else 960), args.rounds or (3 if args.quick else 7)
        with tempfile.TemporaryDirectory() as folder:
            clips = synthesise(Path(folder), count)
            ratios = throughput(clips, Path(folder), rounds) | front_end_cost(clips, rounds)
            ratios |= checksum_cost(clips, rounds)
        ratios |= shuffling(20_000 if args.quick else 200_000)
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))


def earshot(clips: Clips, workers: int, mel: bool) -> Contender:
    """The exact-order loader."""
    settings, audio = (MASKED, MEL) if mel else (PLAIN, WAVES)

    def fresh() -> Loader:
        return Loader(clips, Order(clips.table, settings, 0), settings, audio, no_tokens, workers=workers)

    kept = fresh()
    return Contender(lambda: kept.epoch(0), lambda: fresh().epoch(0, len(clips.members) // BATCH // 2), "exact")


def throughput(clips: Clips, folder: Path, rounds: int) -> dict[str, float]:
    """Clips a second of every contender in its best round; the rounds of all contenders alternate."""
    ratios: dict[str, float] = {}
    for workers in (1, 2):
        for mel in (False, True):
            found, absent = contenders(clips, folder, workers, mel)
            found = {"earshot": earshot(clips, workers, mel)} | found
            with multiprocessing.get_context("fork").Pool(workers) as pool:
                parts = [(clips.members[worker::workers], mel) for worker in range(workers)]
                runs: dict[str, Run] = {"floor": partial(pool.starmap, floor, parts, 1)}
                runs |= {name: partial(drain, one.epoch) for name, one in found.items()}
                best = {name: len(clips.members) / seconds for name, seconds in race(runs, rounds).items()}
                compared = {name: runs[name] for name in ("floor", "earshot")}
                if not mel:
                    parts_of_files = [(clips.files[worker::workers],) for worker in range(workers)]
                    compared["floor with reading"] = partial(pool.starmap, floor_from_files, parts_of_files, 1)
                spent = race(compared, rounds, workers_s)
            print(f"\n{'masked mel' if mel else 'decoded audio'}, {workers} worker{'s' * (workers > 1)}")
            print(f"{'':12} {'clips/s':>8} {'of floor':>9} {'resumed after':>14}")
            for name, rate in best.items():
                share = rate / best["floor"]
                after = "" if name == "floor" else f"{resumed(found[name].middle):>12.2f} s  {found[name].resumes}"
                print(f"{name:12} {rate:>8.0f} {share:>9.2f} {after}")
                if name != "floor":
                    ratios[f"{'mel' if mel else 'audio'}_{workers}_{name}_of_floor"] = share
            cost = {name: 1000 * seconds / len(clips.members) for name, seconds in spent.items()}
            ratios[f"{'mel' if mel else 'audio'}_{workers}_processor_of_floor"] = cost["floor"] / cost["earshot"]
            print(f"processor time of the workers, ms a clip: earshot {cost.pop('earshot'):.2f}")
            for name, ms in cost.items():
                print(f"{name} {ms:.2f} ({ms * len(clips.members) / 1000 / spent['earshot']:.2f} of its speed)")
            for name, why in absent.items():
                print(f"{name:12} left out: {why}")
    return ratios


def drain(epoch: Callable[[], Iterable[Any]]) -> None:
    for _ in epoch():
        pass


def resumed(middle: Callable[[], Iterator[Any]]) -> float:
    """Seconds from a new loader to the first batch of the second half of an epoch."""
    start = time.perf_counter()
    next(middle())
    return time.perf_counter() - start


def workers_s() -> float:
    """Seconds of processor time of this process's children and their threads, as Linux counts it."""
    tasks = (task for child in multiprocessing.active_children() for task in Path(f"/proc/{child.pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def race(runs: dict[str, Run], rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Best seconds of each run.  Runs alternate, so that a slow moment affects all; the first round is a warm-up."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number:
                best[name] = min(best[name], clock() - start)
    return best


def front_end_cost(clips: Clips, rounds: int) -> dict[str, float]:
    """Processor time of the masked training spectrogram, as a worker computes it, and of AugmentMelSTFT."""
    keep_freed_memory(0)
    gc.freeze()
    waves = torch.stack([decode(data) for data in clips.members[:BATCH]])
    lengths = torch.full((BATCH,), waves.shape[1])
    features, published = FeatureExtractor(MEL, MASKED.masking, train=True), Published()

    def ours() -> None:
        features(waves, lengths, torch.randint(2**40, (BATCH,)))

    def bare() -> None:
        for wave in waves:
            bare_spectrogram(wave, space)

    def theirs(size: int) -> None:
        for at in range(0, BATCH, size):
            published(waves[at : at + size])

    space = {name: torch.rand(rows, columns) for name, rows, columns in SPACE}
    runs: dict[str, Run] = {"ours": ours, "bare": bare}
    runs |= {str(size): partial(theirs, size) for size in (1, 4, BATCH)}
    cost = {name: 1000 * seconds / BATCH for name, seconds in race(runs, 5 * rounds, time.process_time).items()}
    peer = min(value for name, value in cost.items() if name not in ("ours", "bare"))
    theirs_shown = ", ".join(f"{cost[str(size)]:.2f} (batch {size})" for size in (1, 4, BATCH))
    print(f"\nmasked mel, ms a clip: Earshot {cost['ours']:.2f}; AugmentMelSTFT {theirs_shown}")
    print(f"the calls that compute alone, for the cells that masks leave on average: {cost['bare']:.2f}")
    return {"mel_speedup_over_augmentmelstft": peer / cost["ours"], "mel_of_its_calls": cost["bare"] / cost["ours"]}


def bare_spectrogram(wave: torch.Tensor, space: dict[str, torch.Tensor]) -> None:
    """The floor of `front_end_cost`: the calls of torch and numpy that compute, on memory that stays, of the mean size.

    Masks hide 96 of 1,000 frames and 24 of 128 bins on average.  The filters are drawn once.
    """
    sound, cut, power, mel = space["sound"][0], space["cut"], space["power"], space["mel"]
    imaginary, bank = space["imaginary"], kaldi_bank(128, 1024, RATE, 0.0, 15000.0)
    with torch.inference_mode():
        torch.sub(wave[1:], wave[:-1], alpha=0.97, out=sound[: len(wave) - 1])
        frames = sound.unfold(0, 1024, 320)
        for begin in range(0, len(power), len(cut)):
            part = power[begin : begin + len(cut)]
            torch.mul(frames[begin : begin + len(cut)], space["window"][0], out=cut)
            spectra = torch.fft.rfft(cut).numpy()
            np.square(spectra.real, out=part.numpy())
            np.abs(spectra.imag, out=imaginary.numpy())
            part.addcmul_(imaginary, imaginary)
            del spectra
        for filters, band, weights in bank.groups([slice(0, len(mel))]):
            torch.mm(weights, power.t()[band], out=mel[filters])
        mel.add_(1e-5).log_().add_(4.5).div_(5)


def checksum_cost(clips: Clips, rounds: int) -> dict[str, float]:
    """The time of comparing each clip's bytes with the manifest's checksum, as a share of decoding them."""
    known = [(data, fast_checksum(data)) for data in clips.members[:BATCH]]

    def check() -> None:
        assert not any(is_changed(data, checksum, "") for data, checksum in known)

    def decode_all() -> None:
        for data, _ in known:
            decode_segment(data)

    cost = race({"check": check, "decode": decode_all}, 5 * rounds, time.process_time)
    share = cost["check"] / cost["decode"]
    check_us, decode_ms = 1e6 * cost["check"] / len(known), 1e3 * cost["decode"] / len(known)
    print(f"\nchecksums: {check_us:.1f} us a clip, {100 * share:.2f} % of decoding it, which takes {decode_ms:.2f} ms")
    return {"checksum_of_decoding": share}


if __name__ == "__main__":
    main()
