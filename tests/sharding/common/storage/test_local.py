"""What a local folder alone can hold or do."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
from pathlib import Path

import pytest

from sharding.common.storage import Storage, UnreadableFile, apply_umask


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
    for read in (lambda: Storage("/proc/self").read("mem"), lambda: Storage("/proc/self").open("mem").read(1 << 20)):
        with pytest.raises(UnreadableFile) as caught:
            read()
        error = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker process
        assert (error.errno, error.filename) == (errno.EIO, "/proc/self/mem")


def test_nothing_lies_after_the_end_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"0123456789")
    assert [Storage(tmp_path).read("a.bin", *part) for part in ((3, 2), (8, 5), (10, 5), (99, 5))] == [
        b"34",
        b"89",
        b"",
        b"",
    ]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Storage(tmp_path).read("deep/absent.wav")
    assert caught.value.filename == f"{tmp_path}/deep/absent.wav"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_allows(umask: int, mode: int, tmp_path: Path) -> None:
    (tmp_path / "private").touch(0o600)
    former = os.umask(umask)
    try:
        Storage(tmp_path).write("written", b"x")
        apply_umask(tmp_path / "private")
    finally:
        os.umask(former)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"written": mode, "private": mode}


def test_a_lack_of_room_names_the_file_that_was_written(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError) as caught:
            Storage(tmp_path).write("large.bin", bytes(2 << 20))
    finally:
        signal.signal(signal.SIGXFSZ, former)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert caught.value.filename == f"{tmp_path}/large.bin"
    assert list(tmp_path.iterdir()) == []
