from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage


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


def test_files_move_and_what_killed_writers_left_is_removed(storage: Storage) -> None:
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


def test_tables_are_read_back_and_equal_tables_have_equal_bytes(storage: Storage) -> None:
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", "z"]})
    storage.write_table("one.parquet", table)
    storage.write_table("two.parquet", pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert storage.read_table("one.parquet").equals(table)
    assert storage.read_table("one.parquet", ["b"]).column_names == ["b"]
    assert storage.read("one.parquet") == storage.read("two.parquet")


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/etc/passwd", "a\\..\\..\\b"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="climbs out"):
        Storage(tmp_path).read(name)


@pytest.mark.parametrize("url", ["s3://", "s3:///", "s3:", "s3:/bucket/folder"])
def test_an_incomplete_address_is_not_taken_for_a_local_folder(url: str) -> None:
    with pytest.raises(InputError, match="incomplete address"):
        Storage(url)


def test_storage_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a.bin", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a.bin") == b"x"


def test_files_in_memory_are_refused() -> None:
    with pytest.raises(InputError, match="gone when the process ends"):
        Storage("memory://bucket/out")
