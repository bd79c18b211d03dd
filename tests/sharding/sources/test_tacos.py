from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.tacos import read
from tests.sharding.sources.trees import TACOS_METADATA, archive, by_id, table, touch

BOM = "utf-8-sig"


def tacos(root: Path, strong: list, weak_column: str = "text", splits: bool = True) -> None:
    rows = [[f"{i}.mp3", "rain;roof", i, "ann", "CC0", "Rain", 60, 5, 25] for i in (11, 22)]
    table(root / "metadata.csv", TACOS_METADATA, rows, BOM)
    table(root / "annotations_strong.csv", "filename,text,onset,offset", strong, BOM)
    table(root / "annotations_weak.csv", f"filename,{weak_column}", [["11.mp3", "weak"], ["22.mp3", "weak"]], BOM)
    if splits:
        table(root / "development_split.csv", "filename", [["11.mp3"]], BOM)
        table(root / "test_split.csv", "filename", [["22.mp3"]], BOM)


@pytest.mark.parametrize("column", ["text", "caption"])
def test_strong_and_weak_captions(tmp_path: Path, column: str) -> None:
    tacos(tmp_path, [["11.mp3", "a dog", 1.5, 3], ["11.mp3", "rain", 0, 20]], column)
    touch(tmp_path, "audio/11.mp3", "audio/33.mp3")
    found = read(Storage(tmp_path))
    rows = by_id(found.catalogue)
    assert list(rows) == ["tacos/development/11", "tacos/test/22"]
    row = rows["tacos/development/11"]
    assert [tuple(caption.values())[:4] for caption in row["captions"]] == [
        ("a dog", "human", 1.5, 3.0), ("rain", "human", 0.0, 20.0), ("weak", "machine", None, None),
    ]  # fmt: skip
    assert row["identity"] == "freesound:11" and row["interval"] == {"start": 5.0, "end": 25.0}
    assert row["published_duration_s"] == 20.0 and row["path"] == "audio/11.mp3" and row["notes"] == []
    assert rows["tacos/test/22"]["problem"] == "missing"
    assert found.orphans["path"].to_pylist() == ["audio/33.mp3"]


def test_intervals_outside_the_clip_are_clipped_and_noted(tmp_path: Path) -> None:
    strong = [["11.mp3", "a", -0.02, 3], ["11.mp3", "b", 18, 20.4], ["11.mp3", "c", 30, 31], ["11.mp3", "d", 4, 4]]
    tacos(tmp_path, strong)
    row = by_id(read(Storage(tmp_path)).catalogue)["tacos/development/11"]
    spans = [(caption["onset"], caption["offset"]) for caption in row["captions"]]
    assert spans == [(0.0, 3.0), (18.0, 20.0), (None, None), (None, None), (None, None)]
    assert sum("clipped" in note for note in row["notes"]) == 2
    assert sum("without length" in note for note in row["notes"]) == 2


def test_without_split_tables_clips_count_as_development(tmp_path: Path) -> None:
    tacos(tmp_path, [], splits=False)
    found = read(Storage(tmp_path))
    assert set(found.catalogue["split"].to_pylist()) == {"development"}
    assert any("count as development" in note for note in found.notes)
    assert all("development" in notes[0] for notes in found.catalogue["notes"].to_pylist())


def test_a_missing_test_split_is_refused(tmp_path: Path) -> None:
    tacos(tmp_path, [])
    (tmp_path / "test_split.csv").unlink()
    with pytest.raises(InputError, match="and no test_split"):
        read(Storage(tmp_path))


def test_audio_in_the_published_archive(tmp_path: Path) -> None:
    tacos(tmp_path, [])
    archive(tmp_path / "audio.zip", "audio/11.mp3", "audio/22.mp3")
    assert read(Storage(tmp_path)).catalogue["path"].to_pylist() == [
        "audio.zip!/audio/11.mp3",
        "audio.zip!/audio/22.mp3",
    ]


def test_an_excerpt_that_ends_after_its_original_is_noted(tmp_path: Path) -> None:
    tacos(tmp_path, [])
    table(tmp_path / "metadata.csv", TACOS_METADATA, [["11.mp3", "", 11, "", "", "", 20, 5, 25]])
    notes = by_id(read(Storage(tmp_path)).catalogue)["tacos/development/11"]["notes"]
    assert "ends after its original" in notes[0]


def test_broken_tables(tmp_path: Path) -> None:
    tacos(tmp_path, [["11.mp3", "a dog", 1, "later"]])
    with pytest.raises(InputError, match=r"annotations_strong\.csv, row 2: offset"):
        read(Storage(tmp_path))
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(InputError, match=r"metadata\.csv missing"):
        read(Storage(tmp_path))


def test_recordings_of_one_freesound_id_keep_their_names_apart(tmp_path: Path) -> None:
    tacos(tmp_path, [["11.mp3", "a", 0, 3]], splits=False)
    rows = [[name, "rain", 7, "ann", "CC0", "Rain", 60, 5, 25] for name in ("x.mp3", "y.mp3", "y.flac")]
    table(tmp_path / "metadata.csv", TACOS_METADATA, rows, BOM)
    found = list(by_id(read(Storage(tmp_path)).catalogue))
    assert found[:3] == ["tacos/development/7", "tacos/development/y", "tacos/development/y.flac"]


def test_an_id_that_is_not_a_number_gets_a_remark(tmp_path: Path) -> None:
    tacos(tmp_path, [["11.mp3", "a", 0, 3]])
    table(tmp_path / "metadata.csv", TACOS_METADATA, [["11.mp3", "rain", "11.0", "ann", "CC0", "R", 60, 5, 25]], BOM)
    (row, _) = by_id(read(Storage(tmp_path)).catalogue).values()
    assert row["identity"] is None and "not a Freesound id: 11.0" in row["notes"]
