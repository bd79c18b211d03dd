"""The tables of a build as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.reports.export import export_csv
from sharding.shards.manifest import Manifest

Lines = list[dict[str, str]]


@pytest.fixture(scope="module")
def tables(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lines]:
    folder = tmp_path_factory.mktemp("csv")
    counts = export_csv(str(built), folder)
    found: dict[str, Lines] = {}
    for path in folder.iterdir():
        with path.open(newline="", encoding="utf-8-sig") as file:
            found[path.stem] = list(csv.DictReader(file))
    assert {f"{name}.csv": len(lines) for name, lines in found.items()} == counts
    return found


def test_every_row_is_there(built: Path, tables: dict[str, Lines]) -> None:
    manifest = Manifest.open(built)
    matches = manifest.storage.read_table("matches.parquet")
    assert {name: len(lines) for name, lines in tables.items()} == {
        "clips": 14,
        "captions": 14,
        "fates": 14,
        "samples": manifest.table.num_rows,
        "matches": matches.num_rows,
    }


def test_a_clip_has_its_fate_beside_it(tables: dict[str, Lines]) -> None:
    leak = next(row for row in tables["clips"] if row["clip_id"] == "mine/train/leak")
    assert (leak["fate"], leak["other"], leak["captions"]) == ("withheld", "mine/test/held", "1")
    caption = next(row for row in tables["captions"] if row["clip_id"] == "mine/train/leak")
    assert (caption["number"], caption["kind"], caption["onset"]) == ("1", "human", "")


def test_values_of_a_list_are_separated(tables: dict[str, Lines]) -> None:
    long = next(row for row in tables["fates"] if row["clip_id"] == "mine/train/long")
    assert long["keys"].split(" | ") == [f"mine~train~long@{window:05d}" for window in range(3)]


def test_a_folder_that_cannot_be_written_is_named(built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --csv"):
        export_csv(str(built), tmp_path / "file")
