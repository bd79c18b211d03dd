from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sharding.build.claim import claim
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from tests.conftest import Weather


def test_what_is_written_is_read_whole_and_in_parts(storage: Storage) -> None:
    storage.write("a/b.bin", b"0123456789")
    assert storage.exists("a/b.bin")
    assert not storage.exists("a")
    assert storage.size("a/b.bin") == 10
    assert storage.read("a/b.bin") == b"0123456789"
    assert storage.read("a/b.bin", 3, 4) == b"3456"
    assert storage.read("a/b.bin", 8, 100) == b"89"
    storage.write("..empty", b"")  # the name begins with dots, and does not climb
    assert storage.read("..empty") == b""
    with storage.open("a/b.bin") as file:
        file.seek(7)
        assert file.read() == b"789"


def test_listing_is_recursive_sorted_and_relative(storage: Storage) -> None:
    for name in ("z.txt", "a/two.txt", "a/b/one.txt"):
        storage.write(name, b"x")
    assert storage.list() == ["a/b/one.txt", "a/two.txt", "z.txt"]
    assert storage.list("a") == ["a/b/one.txt", "a/two.txt"]
    assert storage.list("nothing") == []
    assert storage.sizes("a/b") == {"a/b/one.txt": 1}
    assert storage.child("a").list() == ["b/one.txt", "two.txt"]


def test_folders_that_a_console_made_are_no_files(s3: str, tmp_path: Path) -> None:
    import boto3

    for name in ("", "sub/"):
        boto3.client("s3").put_object(Bucket="earshot", Key=f"{tmp_path.name}/{name}", Body=b"")
    assert Storage(f"{s3}/{tmp_path.name}").list() == []


def test_a_file_appears_whole_or_not_at_all(storage: Storage) -> None:
    storage.write("kept.bin", b"old")

    def fail() -> None:
        with storage.writer("kept.bin") as file:
            file.write(b"new, but half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert storage.read("kept.bin") == b"old"
    assert storage.list() == ["kept.bin"]


def test_an_upload_that_breaks_off_leaves_what_was_there(s3: str, weather: Weather, tmp_path: Path) -> None:
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("shard.tar", b"old")
    parts = []

    def refuse_the_second_part(request: dict[str, Any]) -> str | None:
        if "partNumber=" not in request["QUERY_STRING"]:
            return None
        parts.append(request["QUERY_STRING"])
        return "403 Forbidden" if len(parts) == 2 else None  # later ones would be taken again

    weather.rule = refuse_the_second_part
    try:
        with pytest.raises(PermissionError):
            storage.write("shard.tar", bytes(130 << 20))
    finally:
        weather.rule = lambda request: None
    assert len(parts) == 2
    assert storage.read("shard.tar") == b"old"
    assert storage.list() == ["shard.tar"]


def test_passing_failures_of_an_object_store_are_waited_out(s3: str, weather: Weather, tmp_path: Path) -> None:
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("a.bin", b"0123456789")
    refused = []

    def refuse_three_times(request: dict[str, Any]) -> str | None:
        refused.append(request["PATH_INFO"])
        return "503 Slow Down" if len(refused) <= 3 else None

    weather.rule = refuse_three_times
    try:
        assert storage.read("a.bin", 2, 3) == b"234"
    finally:
        weather.rule = lambda request: None
    assert len(refused) == 4


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
def test_a_file_that_cannot_be_asked_for_is_not_called_absent(
    s3: str, weather: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """What is taken for absent is written anew, and what was to be moved there is removed."""
    monkeypatch.setattr("sharding.common.storage._PAUSE_S", 0.0)
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("a.bin", b"0123456789")
    weather.rule = lambda request: status
    try:
        with pytest.raises(OSError):
            storage.exists("a.bin")
        with pytest.raises(OSError):
            storage.move("a.bin", "b.bin")
    finally:
        weather.rule = lambda request: None
    assert storage.exists("a.bin") and not storage.exists("b.bin")


def test_stores_that_cannot_be_reached_are_told_plainly(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharding.common.storage._PAUSE_S", 0.0)
    with pytest.raises(InputError, match="bucket does not exist"), claim(Storage("s3://no-bucket-of-that-name/out")):
        pass
    with pytest.raises(InputError, match="remedy"):
        Storage("nowhere://a/b").exists("c")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"), claim(Storage(f"{s3}/{tmp_path.name}")):
        pass


def test_files_move_and_what_killed_writers_left_is_swept(storage: Storage) -> None:
    storage.write("a/one.bin", b"1")
    storage.move("a/one.bin", "b/two.bin")
    storage.move("a/one.bin", "b/two.bin")  # once more, as after a kill
    assert storage.list() == ["b/two.bin"]
    if storage.local is not None:
        (storage.local / "b/.three.bin.k3j4.tmp").write_bytes(b"half")
        assert storage.list() == ["b/two.bin"]
        storage.sweep()
        assert [path.name for path in (storage.local / "b").iterdir()] == ["two.bin"]


def test_removing_is_idempotent(storage: Storage) -> None:
    storage.write("a/b.bin", b"x")
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    storage.write("c/d/e.bin", b"x")
    storage.remove_tree("c")
    storage.remove_tree("c")
    assert storage.list() == []


def test_tables_come_back_and_have_the_same_bytes(storage: Storage) -> None:
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", "z"]})
    storage.write_table("one.parquet", table)
    storage.write_table("two.parquet", pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert storage.read_table("one.parquet").equals(table)
    assert storage.read_table("one.parquet", ["b"]).column_names == ["b"]
    assert storage.read("one.parquet") == storage.read("two.parquet")


def test_members_of_zip_archives_are_read_in_place(storage: Storage, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "audio.zip", "w") as archive:
        archive.writestr("deep/one.txt", b"inside")
    storage.write("audio.zip", (tmp_path / "audio.zip").read_bytes())
    with storage.open("audio.zip!/deep/one.txt") as file:
        file.seek(2)
        assert file.read() == b"side"
    with pytest.raises(FileNotFoundError, match="no member"):
        storage.open("audio.zip!/deep/two.txt")


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/etc/passwd", "a\\..\\..\\b"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="climbs out"):
        Storage(tmp_path).read(name)


@pytest.mark.parametrize("url", ["s3://", "s3:///", "s3:", "s3:/bucket/folder"])
def test_half_an_address_is_no_local_folder(url: str) -> None:
    with pytest.raises(InputError, match="half an address"):
        Storage(url)


def test_storage_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a.bin", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a.bin") == b"x"


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


def test_an_archive_that_is_replaced_is_read_anew(storage: Storage) -> None:
    for content in (b"first", b"later", b"another size"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("x.wav", content)
        storage.write("a.zip", buffer.getvalue())
        assert storage.read("a.zip!/x.wav") == content
