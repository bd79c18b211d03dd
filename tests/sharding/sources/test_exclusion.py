from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.sources.exclusion import list_report, listed, read_exclusion_list
from tests.sharding.catalogue.clips import catalogue, clip


@pytest.mark.parametrize(
    ("name", "text", "identities"),
    [
        ("c.csv", "sound_id\n7\nNot found\n8\n", {"freesound:7", "freesound:8"}),
        ("l.csv", "index,id\r\n0,Y-bcdefghijk.wav\r\n1,99\r\n", {"youtube:-bcdefghijk", "freesound:99"}),
        (
            "b.json",
            json.dumps({"AudioSet": ["Yabcdefghijk.wav"], "FreeSound": ["7", "Not found"]}),
            {"youtube:abcdefghijk", "freesound:7"},
        ),
    ],
)
def test_every_form_of_exclusion_list(tmp_path: Path, name: str, text: str, identities: set[str]) -> None:
    (tmp_path / name).write_text(text, newline="")
    assert read_exclusion_list(str(tmp_path / name)).identities == identities


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name\n7\n", "lacks the column"),
        ("sound_id\nbird\n", "row 2: the entry names no sound"),
        ('{"FreeSound": ["7"', "cut off"),
        ('{"Vimeo": ["7"]}', "not a list of"),
        ("", "empty"),
        ("sound_id\n" + "7" * 200_000, "field limit"),
        ('{"FreeSound": ' + "[" * 100_000, "cut off or broken"),
    ],
)
def test_a_file_that_is_not_an_exclusion_list_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=what):
        read_exclusion_list(str(tmp_path / "list"))
    with pytest.raises(InputError, match="no such"):
        read_exclusion_list(str(tmp_path / "absent.csv"))


def test_a_list_names_clips_of_other_collections_only(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("sound_id\n7\nNot found\n")
    one = read_exclusion_list(str(tmp_path / "c.csv"))
    rows = catalogue(
        clip("clotho/development/a", "freesound:7"),
        clip("wavcaps/FreeSound/7", "freesound:7"),
        clip("tacos/development/7", "freesound:7"),
        clip("wavcaps/FreeSound/8", "freesound:8"),
        clip("wavcaps/AudioSet_SL/Yx", None),
    )
    assert listed(rows, [one]) == {"wavcaps/FreeSound/7": "c.csv", "tacos/development/7": "c.csv"}
    (row,) = list_report(rows, [one])
    assert (row["dataset"], row["ids"], row["missed"]) == ("clotho", 1, 0)
