"""What recordings of hours that hold a protected sound cost: processor time of a build's steps, and peak memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import soundfile
import soxr

from sharding.build.run import build
from sharding.common.progress import Progress
from sharding.common.runners import LocalRunner
from sharding.fates.decide import FateSettings
from sharding.settings import BuildSettings
from sharding.sources.protected import parse_protect

RATE = 22050
LEAK_S = 30.0
STEPS = ("match (posting)", "match (comparing)", "match (every place)", "match (explaining)", "trim", "write")


class Watching(LocalRunner):
    """Runs work in this process, and notes the processor time at which each step begins, and the peak of decoders."""

    def __init__(self) -> None:
        super().__init__(1)
        self.begun: dict[str, float] = {}
        self.decoder_mb = 0.0

    def watch(self, progress: Progress) -> None:
        self.begun.setdefault(progress.what, time.process_time())
        self.decoder_mb = max([self.decoder_mb, *(peak_mb(child.pid) for child in psutil.Process().children())])


def peak_mb(process: int) -> float:
    """The most memory that a process has held; ``getrusage`` would count what its parent held when it began."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def write_recordings(folder: Path, waves: list[np.ndarray], hours: float) -> None:
    """A FLAC and an MP3 of so many hours, which both hold a protected sound of 30 s, and that sound.

    The second one plays the same sounds faster, so that nothing else in the two is the same.
    """
    held, *rest = [soxr.resample(wave, 32000, RATE) for wave in waves]
    held = np.resize(held, round(LEAK_S * RATE))
    size = round(hours * 3600 * RATE)
    for name, speed in (("a.flac", 1.0), ("b.mp3", 1.09)):
        parts = [soxr.resample(wave, RATE * speed, RATE) if speed != 1 else wave for wave in rest]
        with soundfile.SoundFile(folder / name, "w", RATE, 1) as file:
            for block in blocks(parts, size, held, size // 3):
                file.write(np.clip(block, -1, 1))
    soundfile.write(folder / "held.flac", held, RATE)
    lines = ["path,captions,split", "a.flac,many sounds,train", "b.mp3,other sounds,train", "held.flac,one sound,test"]
    (folder / "clips.csv").write_text("\n".join(lines))


def blocks(parts: list[np.ndarray], size: int, held: np.ndarray, at: int) -> Iterator[np.ndarray]:
    """``size`` samples: the parts in changing order, with ``held`` from about sample ``at`` on."""
    rng, written = np.random.default_rng(0), 0
    while written < size:
        for number in rng.permutation(len(parts)):
            for block in (held, parts[number]) if written <= at < written + len(parts[number]) else (parts[number],):
                yield block[: max(0, size - written)]
                written += len(block)


def long_recordings(waves: list[np.ndarray], hours: float) -> dict[str, float]:
    """Figures of a build with ``--leaks trim`` of two recordings of so many hours; ``waves`` are at 32 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        write_recordings(source, waves, hours)
        return measured(source, Path(folder) / "out", hours)


def measured(source: Path, out: Path, hours: float) -> dict[str, float]:
    """The same of recordings that ``write_recordings`` wrote."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    context = multiprocessing.get_context("spawn")  # its peak memory is the build's alone
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_build, args=(str(source), str(out), theirs))
    process.start()
    begun, builder_mb, decoder_mb = ours.recv()
    process.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    steps = dict(zip(begun, np.diff(list(begun.values())), strict=False))
    all_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {f"{step}, s": steps[step] for step in STEPS if step in steps}
    figures = {"all, s": all_s, "probe, s": all_s - begun["end"] + steps["probe"], **figures}
    figures |= {"peak of the builder, MB": builder_mb, "peak of a decoder, MB": decoder_mb}
    for what, value in figures.items():
        print(f"  {what:28} {value:8.1f}")
    return {f"two recordings of {hours:g} h: {what}": round(float(value), 1) for what, value in figures.items()}


def _build(source: str, out: str, pipe: Connection) -> None:
    runner = Watching()
    fates = FateSettings(protect=parse_protect("mine/test"), leaks="trim")
    reasons = build(BuildSettings(sources={"mine": source}, fates=fates), out, runner)["reasons"]
    assert reasons["written/trimmed"] == 2, reasons
    pipe.send(({**runner.begun, "end": time.process_time()}, peak_mb(os.getpid()), runner.decoder_mb))
