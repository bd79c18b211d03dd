"""Opening a build: what disagrees with ``dataset.json`` is refused and named."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.checks import checksummed_bytes
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest, read_dataset


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_a_build_opens_with_one_row_a_sample(built: Path) -> None:
    manifest = Manifest.open(built)
    assert manifest.table.num_rows == sum(shard["samples"] for shard in manifest.dataset["shards"])
    assert manifest.table["shard"].unique().to_pylist() == [shard["name"] for shard in manifest.dataset["shards"]]
    assert manifest.catalogue() == ["catalogue/mine.parquet"]


def test_a_folder_without_a_finished_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is not the folder of a build"):
        Manifest.open(tmp_path)


def test_another_format_is_refused_with_its_number(copy: Path) -> None:
    dataset = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_bytes(checksummed_bytes(dataset | {"format": 99}))
    with pytest.raises(InputError, match="the shards have format 99"):
        read_dataset(Storage(copy))


@pytest.mark.parametrize(
    "settings",
    [
        {"a": [1]},
        {"fates": {"protect": [["mine"]]}, "plan": {"shard_bytes": 1}},
        {"fates": {"protect": "mine/test"}, "plan": {"shard_bytes": 1}},
        {"fates": {"protect": []}, "plan": {"shard_bytes": math.nan}},
    ],
)
def test_settings_of_another_shape_are_refused(copy: Path, settings: object) -> None:
    dataset = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_bytes(checksummed_bytes(dataset | {"settings": settings}))
    with pytest.raises(InputError, match=r"(?s)dataset\.json: not what Earshot writes: .*earshot verify"):
        Manifest.open(copy)


def test_a_shard_or_manifest_that_is_missing_or_cut_is_named(copy: Path) -> None:
    shard = sorted((copy / "shards").iterdir())[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"{shard.name}.*says {len(whole)} bytes.*{len(whole) - 1} bytes"):
        Manifest.open(copy)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}.*missing"):
        Manifest.open(copy)
    shard.write_bytes(whole)
    manifest = copy / "manifest" / f"{shard.stem}.parquet"
    manifest.unlink()
    with pytest.raises(InputError, match=rf"{manifest.name}.*missing"):
        Manifest.open(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(rest=st.dictionaries(st.text(), JSON, max_size=5))
def test_the_bytes_of_a_commit_carry_a_checksum_of_all_else(rest: dict[str, object]) -> None:
    contents = checksummed_bytes(rest)
    assert checksummed_bytes(json.loads(contents)) == contents
    rest.pop("checksum", None)
    assert checksummed_bytes(rest) == contents
