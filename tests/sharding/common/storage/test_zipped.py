from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage


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
