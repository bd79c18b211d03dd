"""What a file can do to the process that decodes it: that costs the file, never the batch."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.probe.child import ATTEMPTS, Decoder, DecoderFault
from sharding.probe.clip import ProbeSettings
from sharding.probe.messages import Finished, Started, Task
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import noise, write_corpus

TASKS = [Task(f"x/all/{name}", "x", name) for name in ("a.flac", "b.flac", "c.flac")]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Storage]:
    folder = tmp_path_factory.mktemp("sounds")
    for task in TASKS:
        sf.write(folder / task.path, noise(1, 1.0), 32000)
    # few bytes, and long in work: steps of a second for ten minutes
    steps = np.random.default_rng(0).uniform(-0.5, 0.5, 600)
    sf.write(folder / TASKS[1].path, np.repeat(steps, 8000), 8000)
    return {"x": Storage(folder)}


def decoder() -> int:
    children = psutil.Process().children()
    return next(child.pid for child in children if "sharding.probe.child_main" in child.cmdline())


def watched(
    roots: dict[str, Storage], settings: ProbeSettings, action: signal.Signals, times: int
) -> Iterator[Started | Finished]:
    """Messages about the three clips; the decoder gets a signal whenever it begins with the second one."""
    with tempfile.TemporaryFile() as file:
        for message in Decoder().examine(TASKS, roots, settings, file, "the.pack"):
            yield message
            if isinstance(message, Started) and message.index == 1 and times > 0:
                times -= 1
                os.kill(decoder(), action)


def errors(messages: Iterator[Started | Finished]) -> dict[int, str | None]:
    return {message.index: message.clip.facts.error for message in messages if isinstance(message, Finished)}


def test_a_decoder_that_is_killed_once_costs_nothing(roots: dict[str, Storage]) -> None:
    found = errors(watched(roots, ProbeSettings(), signal.SIGKILL, 1))
    assert found == {0: None, 1: None, 2: None}


def test_a_file_that_kills_its_decoder_each_time_has_crashed_it(roots: dict[str, Storage]) -> None:
    found = errors(watched(roots, ProbeSettings(), signal.SIGSEGV, ATTEMPTS))
    assert found == {0: None, 1: "crashed", 2: None}


def test_a_file_that_hangs_its_decoder_is_given_up(roots: dict[str, Storage]) -> None:
    found = errors(watched(roots, ProbeSettings(timeout_s=0.5), signal.SIGSTOP, 1))
    assert found == {0: None, 1: "timeout", 2: None}


def results(roots: dict[str, Storage], settings: ProbeSettings | None = None) -> list[Started | Finished]:
    with tempfile.TemporaryFile() as file:
        return list(Decoder().examine(TASKS, roots, settings or ProbeSettings(), file, "the.pack"))


def test_a_process_that_does_not_start_is_a_fault_of_the_machine(
    roots: dict[str, Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no library >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    with pytest.raises(DecoderFault, match=r"does not start: .* status 3 \(no library\)"):
        results(roots)


def test_a_process_that_hangs_in_its_start_is_a_fault_of_the_machine(
    roots: dict[str, Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(hanging))
    monkeypatch.setattr("sharding.probe.child.START_S", 0.5)
    with pytest.raises(DecoderFault, match="does not start: stopped after"):
        results(roots)


def test_a_limit_of_memory_that_is_too_small_to_decode_anything_blames_no_clip(roots: dict[str, Storage]) -> None:
    with pytest.raises(DecoderFault, match=r"does not start: .*8 MB"):
        results(roots, ProbeSettings(memory_mb=8))


def test_a_build_whose_decoder_does_not_start_stops_and_books_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    corpus = write_corpus(tmp_path / "corpus", clips=2, seconds=1.0)
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", "/bin/false")
        with pytest.raises(InputError, match="decoder's process does not start"):
            build(settings_for(corpus), str(out), LocalRunner(1))
    assert not (out / "dataset.json").exists()
    assert not list((out / ".build").glob("facts/*"))
    build(settings_for(corpus), str(out), LocalRunner(1))
    assert (out / "dataset.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["FLAC", "WAV"])
def test_memory_does_not_grow_with_length(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    piece = noise(5, 60.0, 16000)
    for minutes in (4, 120):
        with sf.SoundFile(folder / f"{minutes:03d}.{form.lower()}", "w", 16000, 1, "PCM_16", format=form) as file:
            for _ in range(minutes):
                file.write(piece)
    highest = {}
    for name in sorted(path.name for path in folder.iterdir()):
        decoding = Decoder()  # its process has a highest mark that is that of this file
        with tempfile.TemporaryFile() as file:
            task = Task(name, "x", name)
            *_, found = decoding.examine([task], {"x": Storage(folder)}, ProbeSettings(memory_mb=300), file, "the.pack")
        assert isinstance(found, Finished) and found.clip.facts.error is None, found
        assert len(found.clip.facts.windows) == int(name[:3])
        status = Path(f"/proc/{decoder()}/status").read_text().splitlines()
        highest[name] = next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM"))
        decoding.stop()
    short, long = (highest[name] for name in sorted(highest))
    assert long < 300 and long - short < 40, highest
