"""What the decoder's process says of files that it cannot open."""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sharding.common.storage import Storage
from sharding.probe.child import Decoder, DecoderFault
from sharding.probe.child_main import FAULTS_IN_A_ROW
from sharding.probe.clip import ProbeSettings
from sharding.probe.messages import Finished, Task
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import probed, put


def test_paths_that_name_no_regular_file(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"good.wav": odd_sounds.by_soundfile("WAV", "PCM_16")})
    (folder / "broken.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    names = {
        "good.wav": None,
        "broken.wav": "missing",
        "loop.wav": "unreadable",
        "folder.wav": "unreadable",
        "pipe.wav": "unreadable",
        "device.wav": "unreadable",
        "good.wav/below.wav": "unreadable",
        f"{'long' * 100}.wav": "unreadable",
        "../files/good.wav": "out_of_root",
        "/etc/passwd": "out_of_root",
        "zero\0.wav": "out_of_root",
    }
    begun = time.monotonic()
    facts, _ = probed(folder, names=list(names))
    assert {name: row["error"] for name, row in facts.items()} == names
    assert time.monotonic() - begun < 30


def test_members_of_damaged_archives_are_unreadable(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"text.zip": b"no archive", "empty.zip": b""})
    sound = odd_sounds.by_soundfile("WAV", "PCM_16")
    expected: dict[str, str | None] = {"text.zip!/x.wav": "unreadable", "empty.zip!/x.wav": "unreadable"}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", method) as archive:
            archive.writestr("x.wav", sound)
        data = whole.getvalue()
        middle = len(data) // 2
        for how, changed in {
            "whole": data,
            "cut": data[:middle],
            "noise": data[:middle] + np.random.default_rng(3).bytes(20) + data[middle + 20 :],
            "head": b"XXXX" + data[4:],
            "locked": data[: data.rindex(b"PK\1\2") + 8] + b"\1" + data[data.rindex(b"PK\1\2") + 9 :],
        }.items():
            (folder / f"{how}{method}.zip").write_bytes(changed)
            expected[f"{how}{method}.zip!/x.wav"] = None if how == "whole" else "unreadable"
    expected["whole0.zip!/gone.wav"] = "missing"
    facts, _ = probed(folder, names=list(expected))
    assert {name: row["error"] for name, row in facts.items()} == expected


def test_a_file_that_the_disk_cannot_deliver_is_unreadable(tmp_path: Path) -> None:
    """The kernel gives EIO to a process that reads the unmapped start of its own memory."""
    folder = put(tmp_path / "files", {"good.wav": odd_sounds.by_soundfile("WAV", "PCM_16")})
    (folder / "mem.wav").symlink_to("/proc/self/mem")
    facts, _ = probed(folder, names=["mem.wav", "good.wav"])
    assert facts["mem.wav"]["error"] == "unreadable" and "Input/output error" in facts["mem.wav"]["detail"]
    assert facts["good.wav"]["error"] is None


def test_a_zip_bomb_is_unreadable_and_says_why(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.wav", bytes(65 << 20))
    facts, _ = probed(tmp_path, names=["bomb.zip!/x.wav"])
    found = facts["bomb.zip!/x.wav"]
    assert found["error"] == "unreadable" and "decompresses from" in found["detail"]


@pytest.mark.slow
def test_many_such_files_in_a_row_are_a_failure_of_storage_that_names_one() -> None:
    tasks = [Task(f"x/all/{number}", "proc", "mem") for number in range(FAULTS_IN_A_ROW)]
    with (
        tempfile.TemporaryFile() as file,
        pytest.raises(OSError, match=f"{FAULTS_IN_A_ROW} files in a row cannot be read.*mem"),
    ):
        list(Decoder().examine(tasks, {"proc": Storage("/proc/self")}, ProbeSettings(), file, "the.pack"))


def test_many_errors_in_a_row_that_nobody_foresaw_are_a_fault_of_the_installation(tmp_path: Path) -> None:
    """Here ``settings`` cannot be used, as when a worker has another version of Earshot."""
    folder = put(tmp_path / "files", {"a.wav": odd_sounds.by_soundfile("WAV", "PCM_16")})
    broken = ProbeSettings()
    object.__setattr__(broken, "form", None)
    for count in (1, FAULTS_IN_A_ROW):
        tasks = [Task(f"x/all/{number}", "x", "a.wav") for number in range(count)]
        with tempfile.TemporaryFile() as file:
            found = Decoder().examine(tasks, {"x": Storage(folder)}, broken, file, "the.pack")
            if count == 1:
                assert [each.clip.facts.error for each in found if isinstance(each, Finished)] == ["undecodable"]
            else:
                with pytest.raises(DecoderFault, match="not foreseen"):
                    list(found)
