"""Damage of the work folder is found by ``verify``, and before any command changes the build."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.contents import read_contents
from sharding.shards.integrity import verify
from sharding.shards.plan import PlanSettings
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_extra

ONE = LocalRunner(1)


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def flip(path: Path, position: int = -1) -> None:
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)


def test_every_file_that_later_commands_use_is_listed(copy: Path) -> None:
    listed = read_contents(Storage(copy))
    assert listed is not None
    there = {name for name in tree(copy) if name.startswith(".build/")}
    assert set(listed) == there - {".build/lock", ".build/contents.json"}
    assert {Path(name).suffix for name in listed} == {".json", ".parquet", ".pack"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_the_work_folder_is_found(copy: Path, data: st.DataObject) -> None:
    files = sorted(path for path in (copy / ".build").rglob("*") if path.is_file() and path.name != "lock")
    path = data.draw(st.sampled_from([file for file in files if file.stat().st_size]))
    whole = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(whole) - 1)))
    try:
        found = [one.file for one in verify(str(copy), "full", ONE)]
        assert found == [path.relative_to(copy).as_posix()]
    finally:
        path.write_bytes(whole)


def test_quick_finds_what_is_missing_cut_or_strange(copy: Path) -> None:
    pack, facts = next((copy / ".build/packs").iterdir()), copy / ".build/facts/kept.parquet"
    pack.write_bytes(pack.read_bytes()[:-1])
    facts.unlink()
    shutil.copy(copy / "fates.parquet", copy / ".build/fingerprints/strange.parquet")
    found = {one.file: one.what for one in verify(str(copy), "quick", ONE)}
    assert found.pop(f".build/packs/{pack.name}").endswith(f"instead of {pack.stat().st_size + 1}")
    assert found == {
        ".build/facts/kept.parquet": "missing",
        ".build/fingerprints/strange.parquet": "contents.json does not know it",
    }


COMMANDS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "new plan": lambda out, corpus, folder: build(
        dataclasses.replace(settings_for(corpus), plan=PlanSettings(10**6)), str(out), ONE, new_plan=True
    ),
    "retry": lambda out, corpus, folder: build(settings_for(corpus), str(out), ONE, retry="missing"),
    "append": lambda out, corpus, folder: append(str(out), {}, {"extra": str(write_extra(folder / "x", 1.5))}, ONE),
    "reshard": lambda out, corpus, folder: reshard(str(out), str(folder / "new"), 10**6, ONE),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_goes_on_with_a_damaged_pack(command: str, copy: Path, corpus: Path, tmp_path: Path) -> None:
    pack = next((copy / ".build/packs").iterdir())
    flip(pack, 100)
    before = tree(copy)
    with pytest.raises(InputError, match=rf"packs/{pack.name}: damaged"):
        COMMANDS[command](copy, corpus, tmp_path)
    assert tree(copy) == before
    assert not (tmp_path / "new/dataset.json").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_lists_what_it_leaves(command: str, copy: Path, corpus: Path, tmp_path: Path) -> None:
    COMMANDS[command](copy, corpus, tmp_path)
    out = tmp_path / "new" if command == "reshard" else copy
    assert (out / ".build/contents.json").exists()
    assert verify(str(out), "full", ONE) == []


def test_a_build_without_the_list_is_taken_as_it_is_and_gets_one(copy: Path, corpus: Path) -> None:
    (copy / ".build/contents.json").unlink()
    assert verify(str(copy), "full", ONE) == []
    build(settings_for(corpus), str(copy), ONE)
    assert (copy / ".build/contents.json").exists()
