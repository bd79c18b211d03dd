"""What a local folder alone can hold or do."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from sharding.common.storage import Storage, UnreadableFile


def test_a_listing_follows_links_but_not_round_a_loop(tmp_path: Path) -> None:
    (tmp_path / "data/real").mkdir(parents=True)
    (tmp_path / "data/real/a.wav").write_bytes(b"a")
    (tmp_path / "data/real/again").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data/linked").symlink_to(tmp_path / "data/real", target_is_directory=True)
    (tmp_path / "data/nowhere.wav").symlink_to(tmp_path / "absent.wav")
    found = Storage(tmp_path / "data").list()
    assert {"real/a.wav", "linked/a.wav"} <= set(found)
    assert len(found) < 10
    assert Storage(tmp_path / "data").list("./real/") == ["real/a.wav"]


def test_links_in_a_circle_and_pipes_are_listed_and_hinder_nobody(tmp_path: Path) -> None:
    (tmp_path / "one.wav").symlink_to(tmp_path / "two.wav")
    (tmp_path / "two.wav").symlink_to(tmp_path / "one.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert Storage(tmp_path).list() == ["one.wav", "pipe.wav", "two.wav"]
    assert Storage(tmp_path).sizes() == dict.fromkeys(["one.wav", "pipe.wav", "two.wav"], 0)


def test_a_file_that_the_disk_cannot_deliver_is_tried_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives EIO to a process that reads the unmapped start of its own memory."""
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.001)
    for read in (lambda: Storage("/proc/self").read("mem"), lambda: Storage("/proc/self").read("mem", 0, 1 << 20)):
        with pytest.raises(UnreadableFile) as caught:
            read()
        error = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker process
        assert (error.errno, error.filename) == (errno.EIO, "/proc/self/mem")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Storage(tmp_path).read("deep/absent.wav")
    assert caught.value.filename == f"{tmp_path}/deep/absent.wav"
