from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.reports.export import export_csv
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from sharding.shards.tar import padding


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    return out


def test_a_build_is_as_it_was_written(built: Path) -> None:
    for level in ("quick", "full", "decode"):
        assert verify(str(built), level, LocalRunner(1)) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_a_shard_is_found_and_its_sample_named(copy: Path, data: st.DataObject) -> None:
    manifest = Manifest.open(copy)
    shard = data.draw(st.sampled_from(manifest.dataset["shards"]))
    path = copy / "shards" / shard["name"]
    place = data.draw(st.integers(0, shard["bytes"] - 1))
    flip = data.draw(st.integers(1, 255))
    contents = bytearray(path.read_bytes())
    contents[place] ^= flip
    path.write_bytes(contents)
    try:
        found = verify(str(copy), "full", LocalRunner(1))
    finally:
        contents[place] ^= flip
        path.write_bytes(contents)
    rows = [row for row in manifest.table.to_pylist() if row["shard"] == shard["name"]]
    ends = [(row["json_offset"] + row["json_bytes"] + len(padding(row["json_bytes"])), row["key"]) for row in rows]
    sample = next((key for end, key in ends if place < end), None)
    assert [(one.file, one.sample) for one in found] == [(f"shards/{shard['name']}", sample)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_is_found_and_the_loader_refuses_it(copy: Path, data: st.DataObject) -> None:
    manifest = Manifest.open(copy)
    shard = data.draw(st.sampled_from(manifest.dataset["shards"]))
    path = copy / "shards" / shard["name"]
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        assert verify(str(copy), "quick", LocalRunner(1))
        assert any(one.file == f"shards/{shard['name']}" for one in verify(str(copy), "full", LocalRunner(1)))
        with pytest.raises(InputError, match=shard["name"]):
            Manifest.open(copy)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "name",
    [
        "fates.parquet",
        "matches.parquet",
        "orphans.parquet",
        "overview.json",
        "catalogue/mine.parquet",
        "plan/mine-test-000000.parquet",
        "manifest/mine-test-000000.parquet",
    ],
)
def test_damage_of_tables_is_found_by_the_quick_check(copy: Path, name: str) -> None:
    contents = bytearray((copy / name).read_bytes())
    contents[len(contents) // 2] ^= 1
    (copy / name).write_bytes(contents)
    assert [one.file for one in verify(str(copy), "quick", LocalRunner(1))] == [name]


@pytest.mark.parametrize(
    "name", ["catalogue/other.parquet", "manifest/other.parquet", "plan/x.parquet", "shards/x.tar"]
)
def test_what_a_build_did_not_write_is_named_and_counts_nowhere(copy: Path, tmp_path: Path, name: str) -> None:
    before = export_csv(str(copy), tmp_path / "before")
    shutil.copy(copy / "catalogue/mine.parquet", copy / name)
    assert [(one.file, one.what) for one in verify(str(copy), "quick", LocalRunner(1))] == [
        (name, "dataset.json does not know it")
    ]
    assert export_csv(str(copy), tmp_path / "after") == before


def test_a_damaged_manifest_or_commit_is_refused(copy: Path) -> None:
    manifest = next((copy / "manifest").iterdir())
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(InputError, match=manifest.name):
        Manifest.open(copy)
    manifest.write_bytes(whole)
    commit = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(commit.replace('"samples": ', '"samples": 1', 1))
    with pytest.raises(InputError, match="checksum"):
        Manifest.open(copy)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_of_the_commit_is_found(copy: Path, data: st.DataObject) -> None:
    commit = copy / "dataset.json"
    whole = commit.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    byte = data.draw(st.sampled_from([0, 9, 10, 13, 32, 48, 255]))
    rest = {"flip": whole[place + 1 :], "cut": b"", "insert": whole[place:]}[kind]
    damaged = whole[:place] + (b"" if kind == "cut" else bytes([byte])) + rest
    if damaged == whole:
        return
    commit.write_bytes(damaged)
    try:
        assert [one.file for one in verify(str(copy), "quick", LocalRunner(1))] == ["dataset.json"]
        with pytest.raises(InputError, match=r"dataset\.json"):
            Manifest.open(copy)
    finally:
        commit.write_bytes(whole)


def test_without_its_manifest_a_shard_is_still_checked_whole(copy: Path) -> None:
    shard = Manifest.open(copy).dataset["shards"][0]["name"]
    manifest = f"manifest/{Path(shard).stem}.parquet"
    (copy / manifest).unlink()
    assert [one.file for one in verify(str(copy), "full", LocalRunner(1))] == [manifest]
    contents = bytearray((copy / "shards" / shard).read_bytes())
    contents[1000] ^= 1
    (copy / "shards" / shard).write_bytes(contents)
    assert [one.file for one in verify(str(copy), "full", LocalRunner(1))] == [manifest, f"shards/{shard}"]


def test_the_command_names_what_is_damaged_and_exits_with_1(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = Manifest.open(copy).table.to_pylist()[0]
    path = copy / "shards" / shard["shard"]
    contents = bytearray(path.read_bytes())
    contents[shard["audio_offset"] + 3] ^= 4
    path.write_bytes(contents)
    (copy / "shards" / "stranger.tar").write_bytes(b"")
    assert main(["verify", str(copy), "--json"]) == 1
    damage = json.loads(capsys.readouterr().out)["damage"]
    assert {(one["file"], one["sample"]) for one in damage} == {
        (f"shards/{shard['shard']}", shard["key"]),
        ("shards/stranger.tar", None),
    }
