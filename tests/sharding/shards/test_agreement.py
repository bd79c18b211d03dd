"""Tables that disagree about the clips of a build are refused by name, even if every checksum is right."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sharding.checks import checksummed_bytes
from sharding.cli import main
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.agreement import require_agreement
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest

Rows = list[dict[str, Any]]
CATALOGUE, FATES, MATCHES = "catalogue/mine.parquet", "fates.parquet", "matches.parquet"
MANIFEST = "manifest/mine-train-000000.parquet"
FACTS = ".build/facts/kept.parquet"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def forge(out: Path, name: str, change: Callable[[Rows], Rows]) -> None:
    """Change the rows of a table, and every checksum that speaks of them."""
    storage = Storage(out)
    table, dataset = storage.read_table(name), storage.read_json("dataset.json")
    storage.write_table(name, pa.Table.from_pylist(change(table.to_pylist()), table.schema))
    contents = storage.read(name)
    size, sha256 = len(contents), hashlib.sha256(contents).hexdigest()
    for shard in dataset["shards"]:
        if Path(shard["name"]).stem == Path(name).stem and name.startswith("manifest/"):
            shard |= {"manifest_bytes": size, "manifest_sha256": sha256}
    if name in dataset["tables"]:
        dataset["tables"][name] = {"bytes": size, "sha256": sha256}
    storage.write("dataset.json", checksummed_bytes(dataset))


def renamed(column: str, row: int) -> Callable[[Rows], Rows]:
    return lambda rows: [one | {column: "mine/train/\x1b"} if n == row else one for n, one in enumerate(rows)]


def nothing(rows: Rows) -> Rows:
    return []


FORGERIES: dict[str, tuple[str, Callable[[Rows], Rows], str]] = {
    "a fate of an unknown clip": (FATES, renamed("clip_id", 2), f"{FATES}, row 3: the catalogue lacks this clip"),
    "no fates": (FATES, nothing, f"{CATALOGUE}, row 1: fates.parquet lacks this clip"),
    "two fates of each clip": (FATES, lambda rows: rows + rows, f"{FATES}, row 15: this clip has a row already"),
    "no fate is written": (
        FATES,
        lambda rows: [row | {"fate": "failed"} for row in rows],
        "row 1: fates.parquet does not say that this clip was written",
    ),
    "an empty catalogue": (CATALOGUE, nothing, f"{FATES}, row 1: the catalogue lacks this clip"),
    "a clip listed twice": (CATALOGUE, lambda rows: [*rows, rows[0]], f"{CATALOGUE}, row 15: this clip has a row"),
    "evidence about an unknown clip": (MATCHES, renamed("b", 0), f"{MATCHES}, row 1: the catalogue lacks this clip"),
    "a sample of an unknown clip": (MANIFEST, renamed("clip_id", 1), f"{MANIFEST}, row 2: fates.parquet does not say"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_report_export_and_reshard_refuse_tables_that_disagree_and_verify_names_the_table(
    case: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change, message = FORGERIES[case]
    forge(copy, name, change)
    reshard = ["reshard", str(copy), "--out", str(tmp_path / "new"), "--shard-size", "1MB"]
    for command in (["report", str(copy)], ["export", str(copy), "--csv", str(tmp_path / "csv")], reshard):
        assert main(command) == 2
        shown = capsys.readouterr().err
        assert message in shown and "remedy: run `earshot verify`" in shown and "\x1b" not in shown
    assert not any(folder.exists() for folder in (tmp_path / "csv", tmp_path / "new", copy / "report"))
    (damage,) = verify(str(copy), "quick", LocalRunner(1))
    assert message in f"{damage.file}, {damage.what}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (MANIFEST, renamed("clip_id", 1)),
        (FACTS, lambda rows: [row | {"source_rate": None} for row in rows]),
        (FACTS, lambda rows: [row | {"clip_id": "x"} for row in rows]),
    ],
)
def test_stats_name_the_sample_whose_rate_is_not_known(
    name: str, change: Callable[[Rows], Rows], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(copy, name, change)
    assert main(["stats", str(copy)]) == 2
    shown = capsys.readouterr().err
    assert re.search(r"manifest/mine-\w+-000000\.parquet, row \d: the build's facts lack the rate of this clip", shown)


def test_a_missing_table_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / MATCHES).unlink()
    assert main(["report", str(copy)]) == 2
    assert f"{MATCHES}: missing" in capsys.readouterr().err


def test_the_tables_of_a_build_agree(built: Path) -> None:
    require_agreement(Manifest.open(built))
