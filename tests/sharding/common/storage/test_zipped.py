from __future__ import annotations

import io
import os
import resource
import signal
import zipfile
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage, UnreadableFile, is_full


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_members_of_zip_archives_are_read_in_place(storage: Storage, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "audio.zip", "w") as archive:
        archive.writestr("deep/one.txt", b"inside")
    storage.write("audio.zip", (tmp_path / "audio.zip").read_bytes())
    with storage.open("audio.zip!/deep/one.txt") as file:
        file.seek(2)
        assert file.read() == b"side"
    with pytest.raises(FileNotFoundError, match="no member"):
        storage.open("audio.zip!/deep/two.txt")


def test_an_archive_that_is_replaced_is_read_anew(storage: Storage) -> None:
    for content in (b"first", b"later", b"another size"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("x.wav", content)
        storage.write("a.zip", buffer.getvalue())
        assert storage.read("a.zip!/x.wav") == content


def test_a_member_has_a_size_and_can_be_read_in_part(storage: Storage) -> None:
    storage.write("a.zip", zip_of(x=b"0123456789"))
    assert storage.size("a.zip!/x") == 10
    assert storage.read("a.zip!/x", 3, 4) == b"3456"
    with pytest.raises(FileNotFoundError, match=r"a\.zip has no member y"):
        storage.size("a.zip!/y")


def test_more_archives_than_are_kept_open_can_be_read_in_turn(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for number in range(9):
        storage.write(f"{number}.zip", zip_of(x=str(number).encode()))
    for _ in range(2):
        assert [storage.read(f"{number}.zip!/x") for number in range(9)] == [str(n).encode() for n in range(9)]


def test_an_archive_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.zip").write_bytes(zip_of(x=b"secret"))
    with pytest.raises(InputError, match="climbs out"):
        Storage(tmp_path / "folder").read("../outside.zip!/x")


def test_a_member_that_would_decompress_to_an_absurd_size_is_refused(storage: Storage) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.wav", bytes(65 << 20))
        archive.writestr("silence.wav", bytes(63 << 20))  # few enough bytes to be read, whatever their ratio
    storage.write("a.zip", buffer.getvalue())
    with pytest.raises(UnreadableFile, match="68,157,440 bytes") as caught:
        storage.open("a.zip!/bomb.wav")
    assert caught.value.filename == "a.zip!/bomb.wav"
    with storage.open("a.zip!/silence.wav") as member:
        assert member.seek(0, io.SEEK_END) == 63 << 20


def test_a_member_never_decompresses_to_more_than_it_declares(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(1 << 20))
    content = buffer.getvalue().replace((1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        Storage(tmp_path).open("a.zip!/x")


def test_a_lack_of_room_for_a_member_names_the_folder_of_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of(x=os.urandom(64 << 20)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, resource.RLIM_INFINITY))
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match="TMPDIR") as caught:
            Storage(tmp_path).open("a.zip!/x")
        assert is_full(caught.value)
    finally:
        signal.signal(signal.SIGXFSZ, former)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
