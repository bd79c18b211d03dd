"""What a build's files say is checked before it is used, also where a forger made every checksum agree."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.checks import check_table, checksummed_bytes, conform
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.schema import CATALOGUE, FACTS, FATES, MANIFEST, MATCHES
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from tests.sharding.corpora import write_extra


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def forge(out: Path, change: Callable[[dict[str, Any]], None], row: int = 0) -> None:
    """Change a row of the first manifest, and every size and checksum that speaks of it."""
    storage = Storage(out)
    dataset = storage.read_json("dataset.json")
    shard = dataset["shards"][-1]
    name = f"manifest/{Path(shard['name']).stem}.parquet"
    rows = storage.read_table(name).to_pylist()
    change(rows[row])
    storage.write_table(name, pa.Table.from_pylist(rows, MANIFEST))
    contents = storage.read(name)
    shard |= {"manifest_bytes": len(contents), "manifest_sha256": hashlib.sha256(contents).hexdigest()}
    storage.write("dataset.json", checksummed_bytes(dataset))


FORGERIES: dict[str, dict[str, Any]] = {
    "a key that climbs": {"key": "../../escaped", "audio": "../../escaped.flac"},
    "another's key": {"key": "mine~train~a99", "audio": "mine~train~a99.flac"},
    "a shard elsewhere": {"shard": "../other-000000.tar"},
    "sound beyond the shard": {"audio_offset": 1 << 40, "json_offset": 1 << 41},
    "more sound than memory": {"audio_bytes": 1 << 60},
    "a negative size": {"json_bytes": -5},
    "no duration": {"duration_s": math.nan},
    "an endless duration": {"duration_s": math.inf},
    "no checksum": {"audio_sha256": ""},
    "no captions": {"captions": None},
    "a caption without text": {"captions": [{"text": None, "kind": "human"}]},
    "a window that the clip has not": {"window": 7},
    "no rate": {"rate": 0},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_manifest_is_refused_and_writes_nothing(forgery: str, copy: Path, tmp_path: Path) -> None:
    forge(copy, lambda row: row.update(FORGERIES[forgery]))
    damage = verify(str(copy), "full", LocalRunner(1))
    assert [one for one in damage if one.file.startswith("manifest/")]
    with pytest.raises(InputError):
        reshard(str(copy), str(tmp_path / "new"), 10**6, LocalRunner(1))
    assert not (tmp_path / "new/dataset.json").exists()
    assert not list(tmp_path.glob("**/escaped*"))
    if forgery != "another's key":
        with pytest.raises(InputError, match=r"manifest/.*\.parquet, row 1|dataset\.json|captions"):
            Manifest.open(copy)


COMMITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no shards": lambda dataset: dataset.pop("shards"),
    "a shard that climbs": lambda dataset: dataset["shards"][0].update(name="../x-000000.tar"),
    "the same shard twice": lambda dataset: dataset["shards"].append(dataset["shards"][0]),
    "a size in words": lambda dataset: dataset["shards"][0].update(bytes="many"),
    "a table that climbs": lambda dataset: dataset["tables"].update({"../../x": {"bytes": 1, "sha256": "0" * 64}}),
    "a table in the work folder": lambda dataset: dataset["tables"].update(
        {".build/settings.json": {"bytes": 1, "sha256": "0" * 64}}
    ),
    "no counts": lambda dataset: dataset.update(fates=None),
    "a count in words": lambda dataset: dataset["fates"].update(written="all"),
}


@pytest.mark.parametrize("forgery", COMMITS)
def test_a_forged_commit_is_refused(forgery: str, copy: Path) -> None:
    dataset = json.loads((copy / "dataset.json").read_text())
    COMMITS[forgery](dataset)
    (copy / "dataset.json").write_bytes(checksummed_bytes(dataset))
    with pytest.raises(InputError, match=r"dataset\.json"):
        Manifest.open(copy)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(MANIFEST.names),
    value=st.none()
    | st.sampled_from([0, -1, 1, 2**31 - 1, 2**62, 0.0, -1.0, math.nan, math.inf, 1e300, "", "..", "/", "x", "\0"]),
)
def test_whatever_a_manifest_says_it_is_read_or_refused(copy: Path, name: str, value: Any) -> None:
    dataset = (copy / "dataset.json").read_bytes()
    manifests = {path: path.read_bytes() for path in (copy / "manifest").iterdir()}
    target = copy.parent / "target"
    try:
        try:
            forge(copy, lambda row: row.update({name: value}))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            return  # the column cannot hold this value
        with contextlib.suppress(InputError):
            reshard(str(copy), str(target), 10**6, LocalRunner(1))
        verify(str(copy), "decode", LocalRunner(1))
    finally:
        (copy / "dataset.json").write_bytes(dataset)
        for path, contents in manifests.items():
            path.write_bytes(contents)
        shutil.rmtree(target, ignore_errors=True)


FILES: dict[str, bytes] = {
    ".build/settings.json": b'{"probe": 1}',
    ".build/catalogue.json": b'{"datasets": "mine"}',
    ".build/facts/kept.parquet": b"PAR1",
    "catalogue/mine.parquet": b"PAR1",
    "fates.parquet": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_no_build_wrote_are_named(name: str, copy: Path, tmp_path: Path) -> None:
    (copy / name).write_bytes(FILES[name])
    (copy / ".build/contents.json").unlink()  # as in a build of an earlier version
    with pytest.raises(InputError, match=Path(name).name if name != ".build/settings.json" else "settings"):
        append(str(copy), {}, {"extra": str(write_extra(tmp_path / "extra", 1.5))}, LocalRunner(1))


@pytest.mark.parametrize(
    ("name", "schema", "column", "value"),
    [
        (".build/facts/kept.parquet", FACTS, "duration_s", math.nan),
        (".build/facts/kept.parquet", FACTS, "source_sha256", "../x"),
        ("fates.parquet", FATES, "fate", "forgotten"),
        ("matches.parquet", MATCHES, "offset_s", math.inf),
        ("catalogue/mine.parquet", CATALOGUE, "dataset", None),
    ],
)
def test_values_that_no_build_writes_are_named_with_their_row(
    name: str, schema: pa.Schema, column: str, value: Any, copy: Path
) -> None:
    storage = Storage(copy)
    rows = storage.read_table(name).to_pylist()
    rows[1][column] = value
    storage.write_table(name, pa.Table.from_pylist(rows, schema))
    storage.remove(".build/contents.json")  # as in a build of an earlier version
    with pytest.raises(InputError, match=rf"{Path(name).name}, row 2: {column}"):
        append(str(copy), {}, {"extra": str(write_extra(copy.parent / "extra", 1.5))}, LocalRunner(1))


def test_a_table_of_other_columns_or_types_is_refused() -> None:
    table = FATES.empty_table()
    with pytest.raises(InputError, match=r"\['kin'\] are missing"):
        check_table(table.drop_columns("kin"), FATES, "a file")
    index = FATES.get_field_index("kin")
    with pytest.raises(InputError, match="type int64 instead of string"):
        check_table(table.set_column(index, "kin", pa.array([], pa.int64())), FATES, "a file")


class Example(TypedDict):
    names: list[str]
    counts: dict[str, int]
    note: str | None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"names": ["a"], "counts": {"b": 1}, "note": None, "more": 0}, None),
        ({"names": ["a", 1], "counts": {}, "note": None}, r"names\[1\] is 1, not str"),
        ({"names": [], "counts": {"b": True}, "note": None}, r"counts\.b is True, not int"),
        ({"names": [], "counts": {}, "note": 3}, "note is 3"),
        ({"names": [], "counts": {}}, "note is missing"),
        ([], "no object"),
    ],
)
def test_json_is_compared_with_its_shape(value: Any, problem: str | None) -> None:
    if problem is None:
        assert conform(value, Example, "a file") == value
    else:
        with pytest.raises(InputError, match=problem):
            conform(value, Example, "a file")
