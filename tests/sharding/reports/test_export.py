"""The tables of a build as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.reports.export import export_csv, plain_text
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from tests.sharding.corpora import RATE, noise

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


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x", "y")', "@SUM(A1)", "+1", "-1", "\t=1", "\r\n=1", "＝1"])
def test_a_text_that_looks_like_a_formula_is_not_run(text: str) -> None:
    assert plain_text(text) == f"'{text}"


@given(st.text() | st.sampled_from(["'", "''", "'=1", "=1"]))
def test_removing_one_leading_apostrophe_gives_back_every_text(text: str) -> None:
    cell = plain_text(text)
    assert cell.removeprefix("'") == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_ordinary_text_and_numbers_stay_as_they_are(tables: dict[str, Lines]) -> None:
    assert plain_text("a dog = a friend") == "a dog = a friend"
    assert not any(cell.startswith("'") for lines in tables.values() for row in lines for cell in row.values())


def test_captions_of_a_build_cannot_bring_formulas(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    soundfile.write(source / "a.wav", noise(1, 1.5), RATE)
    (source / "clips.jsonl").write_text(json.dumps({"path": "a.wav", "captions": ["=1+1", "'tis rain"]}) + "\n")
    build(BuildSettings(sources={"mine": str(source)}), str(tmp_path / "out"), LocalRunner(1))
    export_csv(str(tmp_path / "out"), tmp_path / "csv")
    with (tmp_path / "csv/captions.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["'=1+1", "''tis rain"]
