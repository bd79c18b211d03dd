from __future__ import annotations

import os
import pickle
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sharding.errors import InputError
from sharding.storage import Storage


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A real S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    boto3.client("s3").create_bucket(Bucket="earshot")
    yield "s3://earshot"
    server.stop()
    for name, value in former.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(tmp_path / "folder")
    return Storage(f"{request.getfixturevalue('s3')}/{tmp_path.name}")


def test_what_is_written_is_read_whole_and_in_parts(storage: Storage) -> None:
    storage.write("a/b.bin", b"0123456789")
    assert storage.exists("a/b.bin")
    assert not storage.exists("a")
    assert storage.size("a/b.bin") == 10
    assert storage.read("a/b.bin") == b"0123456789"
    assert storage.read("a/b.bin", 3, 4) == b"3456"
    assert storage.read("a/b.bin", 8, 100) == b"89"
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


def test_storage_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a.bin", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a.bin") == b"x"
