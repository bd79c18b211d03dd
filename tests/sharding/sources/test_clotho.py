from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.clotho import read
from tests.sharding.sources.trees import by_id, clotho_split, table, texts, touch

ODD = [
    "20100402.Brugge.street.04.wav",
    "Breaking Glass .wav",
    " Ambience Birds.wav",
    "Chris&#39; Elevator.wav",
    "KOOKABURRA..WAV.wav",
    "-dash, (comma) #1.wav",
]


def catalogue(root: Path) -> dict:
    return by_id(read(Storage(root)).catalogue)


def test_odd_names_are_kept_verbatim_and_their_audio_is_found(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", ODD)
    touch(tmp_path, *(f"development/{name}" for name in ODD))
    rows = catalogue(tmp_path)
    assert list(rows) == [f"clotho/development/{name[:-4]}" for name in ODD]
    assert all(row["path"] == f"development/{row['title']}" and row["problem"] is None for row in rows.values())
    assert texts(rows["clotho/development/Breaking Glass "])[0] == "Breaking Glass .wav 1"


def test_metadata_are_latin_1_and_intervals_are_seconds_of_the_original(tmp_path: Path) -> None:
    names = ["a.wav", "b.wav", "c.wav", "d.wav"]
    clotho_split(
        tmp_path,
        "evaluation",
        names,
        ["117790", "7", "Not found", "Not found"],
        ["[44100, 88200]", "", "[0, 44100]", ""],
    )
    rows = catalogue(tmp_path)
    assert rows["clotho/evaluation/a"]["uploader"] == "Zoë"
    assert rows["clotho/evaluation/a"]["identity"] == "freesound:117790"
    assert [row["interval"] for row in rows.values()] == [
        {"start": 1.0, "end": 2.0}, {"start": 0.0, "end": None}, {"start": 0.0, "end": 1.0}, None,
    ]  # fmt: skip
    assert rows["clotho/evaluation/c"]["identity"] is None
    assert {caption["kind"] for caption in rows["clotho/evaluation/a"]["captions"]} == {"human"}


def test_a_utf8_copy_of_the_metadata_is_recognised(tmp_path: Path) -> None:
    clotho_split(tmp_path, "validation", ["a.wav"])
    path = tmp_path / "clotho_metadata_validation.csv"
    path.write_bytes(path.read_bytes().decode("iso-8859-1").encode())
    found = read(Storage(tmp_path))
    assert found.catalogue["uploader"].to_pylist() == ["Zoë"]
    assert any("UTF-8" in note for note in found.notes)


def test_the_layout_of_aac_datasets(tmp_path: Path) -> None:
    base = tmp_path / "CLOTHO_v2.1"
    clotho_split(base / "clotho_csv_files", "development", ["a.wav"])
    touch(base, "clotho_audio_files/development/a.wav", "archives/clotho_audio_development.7z")
    found = read(Storage(tmp_path))
    assert found.catalogue["path"].to_pylist() == ["CLOTHO_v2.1/clotho_audio_files/development/a.wav"]
    assert found.notes == ("no table of the validation split", "no table of the evaluation split")


@pytest.mark.parametrize(
    "folders", [("train", "val", "test"), ("train", "test", "valid"), ("train", "evaluation", "validation")]
)
def test_renamed_folders_are_known_by_what_they_hold(tmp_path: Path, folders: tuple[str, str, str]) -> None:
    shared = "FREEZER.wav"  # one name in two splits
    names = {
        "development": ["d1.wav", "d2.wav", "d3.wav", shared],
        "validation": ["v1.wav", "v2.wav", "v3.wav"],
        "evaluation": ["e1.wav", "e2.wav", "e3.wav", shared],
    }
    for folder, (split, files) in zip(folders, names.items(), strict=True):
        clotho_split(tmp_path, split, files)
        touch(tmp_path, *(f"waveforms/{folder}/{file}" for file in files))
    rows = catalogue(tmp_path)
    for folder, (split, files) in zip(folders, names.items(), strict=True):
        for file in files:
            assert rows[f"clotho/{split}/{file[:-4]}"]["path"] == f"waveforms/{folder}/{file}"


def test_one_folder_may_hold_all_splits(tmp_path: Path) -> None:
    names = {"development": ["d1.wav", "d2.wav", "d3.wav", "d4.wav"], "validation": ["v.wav"], "evaluation": ["e.wav"]}
    for split, files in names.items():
        clotho_split(tmp_path, split, files)
        touch(tmp_path, *(f"audio/{file}" for file in files))
    rows = catalogue(tmp_path)
    assert {row["path"] for row in rows.values()} == {f"audio/{file}" for files in names.values() for file in files}


def test_two_spellings_of_one_file_name_do_not_crash(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", [" a.wav"])
    file = tmp_path / "clotho_captions_development.csv"
    file.write_text(file.read_text() + "a.wav,one,two,three,four,five\n")
    assert len(catalogue(tmp_path)) == 2


def test_audio_of_a_name_in_two_splits_is_never_taken_from_the_other_split(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", ["d1.wav", "shared.wav"])
    clotho_split(tmp_path, "evaluation", ["e1.wav", "shared.wav"])
    touch(tmp_path, "development/d1.wav", "evaluation/e1.wav", "evaluation/shared.wav")
    rows = catalogue(tmp_path)
    assert rows["clotho/development/shared"]["problem"] == "missing"
    assert rows["clotho/evaluation/shared"]["path"] == "evaluation/shared.wav"


def test_caption_tables_under_other_names(tmp_path: Path) -> None:
    header = "file_name,caption_1"
    for name in ("train", "valid", "test"):
        table(tmp_path / f"csv_files/{name}.csv", header, [[f"{name}.wav", "rain"]])
    found = read(Storage(tmp_path))
    assert set(by_id(found.catalogue)) == {
        "clotho/development/train",
        "clotho/evaluation/valid",
        "clotho/validation/test",
    }
    assert any("Freesound ids are unknown" in note for note in found.notes)


def test_the_sets_of_the_challenge(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", ["d.wav"])
    table(
        tmp_path / "clotho_metadata_test.csv",
        "file_name,sound_id,sound_link,start_end_samples,manufacturer,license",
        [["t.wav", "5", "", "[0, 44100]", "x", "CC0"]],
        "iso-8859-1",
        ";",
    )
    table(tmp_path / "retrieval_audio_metadata.csv", "file_name,sound_id", [["a:b.wav", "6"]])
    # Both archives unpack into a folder called `test`.
    touch(tmp_path, "test/t.wav", "test/a_b.wav", "clotho_analysis/z.wav", "development/d.wav", "development/x.wav")
    found = read(Storage(tmp_path))
    rows = by_id(found.catalogue)
    assert rows["clotho/test/t"]["path"] == "test/t.wav"
    assert rows["clotho/test/t"]["captions"] == []
    assert rows["clotho/test/t"]["notes"] == []
    assert rows["clotho/analysis/z"]["identity"] is None
    assert rows["clotho/retrieval/a:b"]["path"] == "test/a_b.wav"
    assert found.orphans["path"].to_pylist() == ["development/x.wav"]


def test_captions_and_metadata_are_joined_even_if_a_copy_lost_spaces(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", [" ghost.wav", "b.wav"])
    table(tmp_path / "clotho_captions_development.csv", "file_name,caption_1", [["ghost.wav", "boo"], ["b.wav", "b"]])
    touch(tmp_path, "development/ghost.wav")
    rows = catalogue(tmp_path)
    assert list(rows) == ["clotho/development/ ghost", "clotho/development/b"]
    row = rows["clotho/development/ ghost"]
    assert texts(row) == ["boo"] and row["identity"] == "freesound:1000" and row["path"] == "development/ghost.wav"
    assert len(row["notes"]) == 2


def test_names_that_lead_out_of_the_folder_are_out_of_root(tmp_path: Path) -> None:
    names = ["../../etc/x.wav", "/abs.wav", "a/../../b.wav"]
    clotho_split(tmp_path, "development", names)
    touch(tmp_path, "x.wav", "abs.wav", "b.wav")
    assert {row["problem"] for row in catalogue(tmp_path).values()} == {"out_of_root"}


def test_broken_tables_name_file_row_and_remedy(tmp_path: Path) -> None:
    clotho_split(tmp_path, "development", ["a.wav", "b.wav"])
    captions = tmp_path / "clotho_captions_development.csv"
    whole = captions.read_bytes()

    def error() -> str:
        with pytest.raises(InputError) as caught:
            read(Storage(tmp_path))
        assert caught.value.remedy
        return str(caught.value)

    captions.write_bytes(whole.rstrip()[:-20])
    assert "clotho_captions_development.csv, row 3" in error()
    captions.write_bytes(whole.replace(b"a.wav 3", b"caf\xe9"))
    assert "clotho_captions_development.csv, row 2: not UTF-8" in error()
    captions.write_bytes(whole.replace(b"caption_1", b"text"))
    assert "lacks the column caption_1" in error()
    captions.write_text(whole.decode(), encoding="utf-16")
    assert "zero bytes" in error()
    captions.write_bytes(b"")
    assert "empty" in error()
    captions.write_bytes(whole.replace(b"b.wav 2", b'"b.wav 2'))
    assert "row 3" in error()
    captions.unlink()
    assert "clotho_captions_development.csv is missing" in error()
    (tmp_path / "clotho_metadata_development.csv").unlink()
    assert "no Clotho table" in error()


def test_two_different_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    clotho_split(tmp_path / "v2", "development", ["a.wav"])
    clotho_split(tmp_path / "v1", "development", ["b.wav"])
    with pytest.raises(InputError, match="two different tables"):
        read(Storage(tmp_path))
