"""Measures a whole build, deduplication included, in clips a second and core, against bare loops and peers.

Every contestant turns the same clips (FLAC, 44.1 kHz, 5 to 30 s) into 32 kHz mono FLAC in tars or files, in a process
of its own, after a few clips to warm up.  The figure is the processor time of that process and of all processes that
it started.  There are two floors: soundfile decodes, soxr resamples and soundfile encodes; and the same with
fingerprints and hashes.  Peers run in .venv-peers (``make bench-peers``); those that are not installed are named and
left out.

    python -m bench.shards [--quick] [--clips N] [--rounds N] [--only NAME,...] [--memory]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 32000
PEER_PYTHON = Path(".venv-peers/bin/python")
WARM = 6  # clips
HOURS = 18.6  # the longest recording of WavCaps
LIMIT_MB = 300


def resampled(path: Path) -> tuple[np.ndarray, bytes]:
    """The floor's work on a clip: its samples at 32 kHz, and the same samples as FLAC."""
    wave, rate = soundfile.read(path, dtype="float32")
    wave = wave if rate == RATE else soxr.resample(wave, rate, RATE, quality="HQ")
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
    return wave, file.getvalue()


def floor(folder: Path, out: Path) -> None:
    for path in clips_of(folder):
        (out / path.name).write_bytes(resampled(path)[1])


def floor_with_hashes(folder: Path, out: Path) -> None:
    from sharding.dedup.fingerprint import fingerprint

    for path in clips_of(folder):
        wave, data = resampled(path)
        fingerprint(wave, RATE)
        for part in (path.read_bytes(), (wave * 32767).astype(np.int16).tobytes(), data):
            hashlib.sha256(part).hexdigest()
        (out / path.name).write_bytes(data)


def earshot(folder: Path, out: Path) -> None:
    from sharding.build.run import build
    from sharding.common.runners import LocalRunner
    from sharding.settings import BuildSettings

    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "captions"])
        rows.writerows((path.name, f"the sound called {path.stem}") for path in clips_of(folder))
    with contextlib.redirect_stderr(io.StringIO()):
        result = build(BuildSettings(sources={"bench": str(folder)}), str(out / "out"), LocalRunner(1))
    assert result["samples"] == len(clips_of(folder)), result["reasons"]


def lhotse_shar(folder: Path, out: Path) -> None:
    from lhotse import CutSet, Recording, SupervisionSegment  # type: ignore[import-not-found]

    cuts = []
    for path in clips_of(folder):
        recording = Recording.from_file(path, recording_id=path.stem)
        cut = recording.to_cut()
        text = SupervisionSegment(path.stem, path.stem, 0, recording.duration, text=f"the sound called {path.stem}")
        cut.supervisions = [text]
        cuts.append(cut.resample(RATE))
    CutSet.from_cuts(cuts).to_shar(out, fields={"recording": "flac"}, shard_size=1000)


def ray_data(folder: Path, out: Path) -> None:
    import ray

    def convert(row: dict) -> dict:
        wave = soxr.resample(row["amplitude"].mean(axis=0), row["sample_rate"], RATE, quality="HQ")
        file = io.BytesIO()
        soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
        stem = Path(row["path"]).stem
        return {"__key__": stem, "flac": file.getvalue(), "json": {"caption": f"the sound called {stem}"}}

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    paths = [str(path) for path in clips_of(folder)]
    ray.data.read_audio(paths, include_paths=True).map(convert).write_webdataset(str(out))


def ffmpeg_processes(folder: Path, out: Path) -> None:
    import imageio_ffmpeg  # type: ignore[import-not-found]

    program = imageio_ffmpeg.get_ffmpeg_exe()
    with tarfile.open(out / "shard.tar", "w") as tar:
        for path in clips_of(folder):
            form = ["-ac", "1", "-ar", str(RATE), "-sample_fmt", "s16"]
            subprocess.run(
                [program, "-v", "error", "-i", str(path), *form, str(out / path.name)],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            tar.add(out / path.name, path.name)
            text = json.dumps({"caption": f"the sound called {path.stem}"}).encode()
            entry = tarfile.TarInfo(f"{path.stem}.json")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))


def webdataset_torchaudio(folder: Path, out: Path) -> None:
    """Torchaudio 2.11 neither decodes nor encodes any more: soundfile does."""
    import torch
    import torchaudio
    import webdataset

    torch.set_num_threads(1)
    convert = torchaudio.transforms.Resample(44100, RATE)
    with webdataset.ShardWriter(str(out / "%06d.tar"), verbose=0) as writer:
        for path in clips_of(folder):
            wave, _ = soundfile.read(path, dtype="float32")
            file = io.BytesIO()
            soundfile.write(file, convert(torch.from_numpy(wave)).numpy(), RATE, format="FLAC", subtype="PCM_16")
            text = {"caption": f"the sound called {path.stem}"}
            writer.write({"__key__": path.stem, "flac": file.getvalue(), "json": text})


OURS: dict[str, Callable[[Path, Path], None]] = {
    "floor": floor,
    "floor+hashes": floor_with_hashes,
    "earshot": earshot,
}
PEERS: dict[str, Callable[[Path, Path], None]] = {
    "lhotse Shar": lhotse_shar,
    "Ray Data": ray_data,
    "ffmpeg a clip": ffmpeg_processes,
    "webdataset": webdataset_torchaudio,
}
COPIED = "earshot copying"  # the sources already have the target format


def clips_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.flac"))


def make_clips(folder: Path, count: int, rate: int, seed: int) -> Path:
    """Clips of 5 to 30 s, each of its own sound."""
    from tests.sharding.corpora import noise

    folder.mkdir(parents=True)
    for number in range(count):
        wave = noise(1000 * seed + number, 5 + 25 * (number * 7 % count) / count, rate)
        soundfile.write(folder / f"{number:04d}.flac", wave, rate, subtype="PCM_16")
    return folder


def compete(name: str, warm: Path, folder: Path, out: Path) -> float:
    """Processor seconds that a contestant takes; RuntimeError if it cannot run."""
    python = PEER_PYTHON if name in PEERS else Path(sys.executable)
    if not python.exists():
        raise RuntimeError("not installed: make bench-peers")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    command = [str(python), "-m", "bench.shards", "--contestant", name, str(warm), str(folder), str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdin and process.stdout and process.stderr
        if process.stdout.readline() != "warm\n":
            raise RuntimeError((process.stderr.read().strip().splitlines() or ["it ended"])[-1][:200])
        before = processor_seconds(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        done = process.stdout.readline()
        taken = processor_seconds(process.pid) - before
        if done != "done\n":
            raise RuntimeError((process.stderr.read().strip().splitlines() or ["it ended"])[-1][:200])
        process.stdin.close()
        process.kill()
    return taken


def processor_seconds(pid: int) -> float:
    """Processor seconds of a process and of all its descendants, also those that have ended."""
    import psutil  # type: ignore[import-untyped]

    process, total = psutil.Process(pid), 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])
    return total


def serve(name: str, warm: Path, folder: Path, out: Path) -> None:
    """The main function of a contestant's process: warm up, wait, run, and stay until its times are read."""
    run = (OURS | PEERS)[name]
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries may print; the answer goes to another descriptor
    for word, clips in (("warm", warm), ("done", folder)):
        target = out / word
        target.mkdir(parents=True)
        run(clips, target)
        answer.write(f"{word}\n")
        sys.stdin.readline()


def speed(scratch: Path, count: int, rounds: int, only: set[str]) -> dict[str, float]:
    warm, folder, ready = (
        make_clips(scratch / "warm", WARM, 44100, 1),
        make_clips(scratch / "clips", count, 44100, 2),
        make_clips(scratch / "ready", count, RATE, 3),
    )
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):  # contestants alternate, so that a busy machine slows all of them
        for name in [*OURS, COPIED, *PEERS]:
            if (only and name not in only) or (name in seconds and not seconds[name]):
                continue
            out = scratch / f"{number}-{name.replace(' ', '-')}"
            try:
                taken = compete("earshot" if name == COPIED else name, warm, ready if name == COPIED else folder, out)
                seconds.setdefault(name, []).append(taken)
            except RuntimeError as error:
                seconds[name] = []
                print(f"  left out: {name}: {error}")
    figures = {name: count / min(taken) for name, taken in seconds.items() if taken}
    base = figures.get("floor", float("nan"))
    print(f"\n{'contestant':18} {'clips/s a core':>15} {'of the floor':>13}")
    for name, figure in figures.items():
        print(f"{name:18} {figure:15.1f} {figure / base:13.2f}")
    ours = figures.get("earshot", float("nan"))
    ratios = {
        f"of {name}": round(ours / figure, 3) for name, figure in figures.items() if not name.startswith("earshot")
    }
    return ratios | {"copying, of floor": round(figures.get(COPIED, float("nan")) / base, 3)}


def long_recordings(scratch: Path, hours: float) -> Iterator[Path]:
    """Write recordings of hours that repeat one sound: as FLAC, as WAV, and as MP3 without a length."""
    from tests.sharding import corpora
    from tests.sharding.audio import odd_sounds

    piece = corpora.noise(0, 60.0, 16000)
    for form in ("flac", "wav"):
        path = scratch / f"long.{form}"
        with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as file:
            for _ in range(round(hours * 60)):
                file.write(piece)
        yield path
        path.unlink()
    frames = odd_sounds.bare_mp3(variable=True)
    with (scratch / "long.mp3").open("wb") as out:
        for _ in range(round(hours * 3600 / odd_sounds.SECONDS)):
            out.write(frames)
    yield scratch / "long.mp3"


def memory(scratch: Path, hours: float) -> dict[str, float]:
    """The highest resident memory of the worker and of its decoder process."""
    result: dict[str, float] = {}
    print(f"{'file':10} {'hours':>6} {'windows':>8} {'times real time':>16} {'worker MB':>10} {'decoder MB':>11}")
    for path in long_recordings(scratch, hours):
        command = [sys.executable, "-m", "bench.shards", "--probe", str(path), str(scratch / f"{path.name}.build")]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        result |= {f"{path.name}: {who} MB": found[who] for who in ("worker", "decoder")}
        print(
            f"{path.name:10} {found['hours']:6.2f} {found['windows']:8d} {found['speed']:16.0f} "
            f"{found['worker']:10.0f} {found['decoder']:11.0f}",
            flush=True,
        )
        assert max(found["worker"], found["decoder"]) < LIMIT_MB, found
    return result


def probe(path: Path, build: Path) -> None:
    """Probe one file, and say how long it was and what it took."""
    import psutil
    import pyarrow as pa

    from sharding.common.storage import Storage
    from sharding.probe.batch import Batch, Prober
    from sharding.probe.clip import ProbeSettings
    from sharding.schema import CATALOGUE

    row = dict.fromkeys(CATALOGUE.names) | {"clip_id": "long/all/file", "dataset": "long", "path": path.name}
    begun = time.monotonic()
    table = pa.Table.from_pylist([row], CATALOGUE)
    prober = Prober({"long": Storage(path.parent)}, Storage(build), ProbeSettings())
    probed = prober(Batch("0", table))
    assert not probed.failures, probed
    taken = time.monotonic() - begun
    windows = Storage(build).read_table("facts/0.parquet")["windows"][0]
    print(
        json.dumps(
            {
                "hours": probed.seconds / 3600,
                "windows": len(windows),
                "speed": probed.seconds / taken,
                "worker": highest_mb(os.getpid()),
                "decoder": max(highest_mb(child.pid) for child in psutil.Process().children()),
            }
        )
    )


def highest_mb(pid: int) -> float:
    """The peak of a process's resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, few clips")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="contestants, comma-separated")
    parser.add_argument(
        "--memory", action="store_true", help=f"peak memory on {HOURS} hours; under a minute with --quick"
    )
    parser.add_argument("--contestant", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        serve(args.contestant[0], *map(Path, args.contestant[1:]))
    elif args.probe:
        probe(*map(Path, args.probe))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            if args.memory:
                result = memory(Path(scratch), 0.5 if args.quick else HOURS)
            else:
                count, rounds = (16, 1) if args.quick else (args.clips, args.rounds)
                result = speed(Path(scratch), count, rounds, set(filter(None, args.only.split(","))))
        print(json.dumps(result))


if __name__ == "__main__":
    main()
