import json
import os
import unicodedata
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.generic import read, row_of_times
from tests.sharding.sources.trees import archive, by_id, table, texts, touch


def catalogue(root: Path) -> dict:
    return by_id(read(Storage(root), "mine").catalogue)


def test_a_csv_of_captions(tmp_path: Path) -> None:
    table(
        tmp_path / "clips.csv",
        "path,captions,identity,split,licence,start_s,end_s",
        [
            ["a/rain.v1.wav", '["one", "two"]', "freesound:7", "train", "CC0", "1.5", "9"],
            ["dog.mp3", "a plain text", "", "", "", "", ""],
        ],
    )
    touch(tmp_path, "a/rain.v1.wav", "extra.flac")
    found = read(Storage(tmp_path), "mine")
    rows = by_id(found.catalogue)
    rain, dog = rows["mine/train/rain.v1"], rows["mine/all/dog"]
    assert texts(rain) == ["one", "two"] and rain["interval"] == {"start": 1.5, "end": 9.0}
    assert rain["identity"] == "freesound:7" and rain["licence"] == "CC0" and rain["path"] == "a/rain.v1.wav"
    assert texts(dog) == ["a plain text"] and dog["problem"] == "missing" and dog["split"] == "all"
    assert found.orphans["path"].to_pylist() == ["extra.flac"]


def test_json_lines_and_numbered_captions(tmp_path: Path) -> None:
    lines = [{"path": "a.wav", "captions": ["one", "two"]}, {"path": "b.wav", "caption_2": "y", "caption_1": "x"}]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rows = catalogue(tmp_path)
    assert texts(rows["mine/all/a"]) == ["one", "two"] and texts(rows["mine/all/b"]) == ["x", "y"]


def test_files_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,captions", [["a/1.wav", "x"], ["b/1.wav", "y"], ["c.wav", "z"], ["c.mp3", "w"]])
    assert list(catalogue(tmp_path)) == ["mine/all/a/1", "mine/all/b/1", "mine/all/c.wav", "mine/all/c.mp3"]


def test_a_name_with_two_suffixes_does_not_take_anothers_id(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,captions", [["x.wav", "x"], ["x.flac", "y"], ["x.wav.flac", "z"]])
    assert list(catalogue(tmp_path)) == ["mine/all/x.wav", "mine/all/x.flac", "mine/all/x.wav.flac"]


def test_files_whose_names_are_not_utf8_are_orphans(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,captions", [["..a.wav", "x"]])
    touch(tmp_path, "..a.wav")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    found = read(Storage(tmp_path), "mine")
    assert by_id(found.catalogue)["mine/all/..a"]["path"] == "..a.wav"
    (orphan,) = found.orphans.to_pylist()
    assert orphan["path"] == "caf\\udce9.wav" and "not UTF-8" in orphan["why"]


def test_half_a_surrogate_pair_in_json_is_refused(tmp_path: Path) -> None:
    lines = [{"path": "a.wav", "captions": "rain", "keywords": [1, "wet"]}, {"path": "b.wav", "captions": "\ud83d"}]
    (tmp_path / "clips.jsonl").write_text(json.dumps(lines[0]))
    assert catalogue(tmp_path)["mine/all/a"]["keywords"] == ["1", "wet"]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match=r"clips.jsonl, row 2: the row holds half of a character.*b\.wav"):
        read(Storage(tmp_path), "mine")


def test_several_rows_of_one_file_are_one_clip(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,captions", [["a.wav", "x"], ["a.wav", "y"], ["a.wav", "X"]])
    assert texts(catalogue(tmp_path)["mine/all/a"]) == ["x", "y"]
    two = [["a.wav", "x", "freesound:1"], ["a.wav", "y", ""], ["a.wav", "z", "freesound:2"]]
    table(tmp_path / "clips.csv", "path,captions,identity", two)
    with pytest.raises(InputError, match="name different sources") as caught:
        catalogue(tmp_path)
    assert (caught.value.row, caught.value.value) == (4, "freesound:2")


def test_captions_with_times(tmp_path: Path) -> None:
    rows = [["a.wav", "a dog", "0.5", "2"], ["a.wav", "a dog", "4", "5.25"], ["a.wav", "a street", "", ""]]
    table(tmp_path / "clips.csv", "path,captions,onset,offset", rows)
    captions = catalogue(tmp_path)["mine/all/a"]["captions"]
    found = [(one["text"], one["onset"], one["offset"]) for one in captions]
    assert found == [("a dog", 0.5, 2.0), ("a dog", 4.0, 5.25), ("a street", None, None)]
    touch(tmp_path, "a.wav")
    assert row_of_times(Storage(tmp_path), "a.wav", 4.0, 5.25) == (str(tmp_path / "clips.csv"), 3)


@pytest.mark.parametrize(
    ("onset", "offset", "what"),
    [
        ("1", "", "a caption with a time has no offset"),
        ("", "1", "a caption with a time has no onset"),
        ("2", "2", "offset is not after onset"),
        ("-1", "2", "onset is not a number of seconds"),
        ("0", "nan", "offset is not a number of seconds"),
        ("0:01", "2", "onset is not a number of seconds"),
    ],
)
def test_times_that_are_none_name_the_row(tmp_path: Path, onset: str, offset: str, what: str) -> None:
    table(tmp_path / "clips.csv", "path,captions,onset,offset", [["a.wav", "x", "", ""], ["a.wav", "y", onset, offset]])
    with pytest.raises(InputError, match=what) as caught:
        read(Storage(tmp_path), "mine")
    assert caught.value.row == 3 and caught.value.remedy


def test_paths_that_climb_and_members_of_archives(tmp_path: Path) -> None:
    archive(tmp_path / "in/sounds.zip", "m.wav")
    table(
        tmp_path / "in/clips.csv",
        "path,captions",
        [["../secret.wav", "x"], ["/etc/x.wav", "y"], ["sounds.zip!/m.wav", "z"]],
    )
    touch(tmp_path, "secret.wav")
    rows = catalogue(tmp_path / "in")
    assert [row["problem"] for row in rows.values()] == ["out_of_root", "out_of_root", None]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (["a.wav", '["open', "", ""], "captions begin like a JSON list"),
        (["a.wav", "x", "117790", ""], "the identity names no source"),
        (["a.wav", "x", "", "soon"], "start_s is not a number"),
        (["", "x", "", ""], "no path"),
    ],
)
def test_defects_name_the_row(tmp_path: Path, row: list, what: str) -> None:
    table(tmp_path / "clips.csv", "path,captions,identity,start_s", [["ok.wav", "x", "", ""], row])
    with pytest.raises(InputError, match=what) as caught:
        read(Storage(tmp_path), "mine")
    assert caught.value.row == 3 and caught.value.remedy


@pytest.mark.parametrize("line", ["[" * 100_000, '{"path": ' + "1" * 5000 + "}", "{'path': 'a.wav'}"])
def test_a_damaged_line_names_its_row(tmp_path: Path, line: str) -> None:
    (tmp_path / "clips.jsonl").write_text('{"path": "a.wav", "captions": "x"}\n' + line)
    with pytest.raises(InputError, match="not a JSON object") as caught:
        read(Storage(tmp_path), "mine")
    assert caught.value.row == 2 and caught.value.remedy


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,path,captions\na.wav,b.wav,x\n")
    with pytest.raises(InputError, match="column path twice"):
        read(Storage(tmp_path), "mine")


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither clips\.csv nor clips\.jsonl"):
        read(Storage(tmp_path), "mine")


def test_a_folder_of_sounds_without_a_table_is_captioned_by_its_paths(tmp_path: Path) -> None:
    paths = ("dogs/Big_bark-02.wav", "rain on tin.flac", "0001.ogg", "notes.txt", "Door knock/door-knock_7.wav")
    for path in (*paths, "dog/3.wav"):
        touch(tmp_path, path)
    found = read(Storage(tmp_path), "mine")
    captions = {row["path"]: [one["text"] for one in row["captions"]] for row in found.catalogue.to_pylist()}
    assert captions == {
        "dogs/Big_bark-02.wav": ["dogs big bark"],
        "rain on tin.flac": ["rain on tin"],
        "0001.ogg": ["0001"],
        "Door knock/door-knock_7.wav": ["door knock"],  # what the folder says already is said once
        "dog/3.wav": ["dog"],
    }
    assert any("no table" in note for note in found.notes)
    assert {one["kind"] for row in found.catalogue.to_pylist() for one in row["captions"]} == {"label"}


def test_words_of_a_path_in_any_script_and_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Vögel")  # as macOS writes names
    for path in (f"{decomposed}/a über.wav", "犬.wav", "कुत्ता 3.wav"):
        touch(tmp_path, path)
    captions = {one["text"] for row in read(Storage(tmp_path), "mine").catalogue.to_pylist() for one in row["captions"]}
    assert captions == {"vögel über", "犬", "कुत्ता"}


def test_a_sound_whose_name_is_not_utf8_is_named_in_a_remark(tmp_path: Path) -> None:
    touch(tmp_path, "dog.wav")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    assert any("not UTF-8" in note and "caf\\udce9.wav" in note for note in read(Storage(tmp_path), "mine").notes)


def test_parts_of_one_file_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.flac")
    table(
        tmp_path / "clips.csv",
        "path,captions,start_s,end_s",
        [["a.flac", "dog", "0", "5"], ["a.flac", "cat", "5", "9"]],
    )
    with pytest.raises(InputError, match="cut nothing"):
        catalogue(tmp_path)


def test_names_are_found_in_any_unicode_form(tmp_path: Path) -> None:
    composed, parted = "caf\u00e9.flac", "cafe\u0301.flac"
    touch(tmp_path, parted)
    table(tmp_path / "clips.csv", "path,captions", [[composed, "cups"]])
    found = read(Storage(tmp_path), "mine")
    assert found.catalogue["path"].to_pylist() == [parted] and found.orphans.num_rows == 0


def test_an_empty_column_of_captions_hides_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "a.flac")
    table(tmp_path / "clips.csv", "path,captions,caption", [["a.flac", "", "a dog"]])
    assert [texts(row) for row in catalogue(tmp_path).values()] == [["a dog"]]


def test_a_build_inside_its_own_input_is_not_part_of_the_input(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.flac",
        "shards/b.flac",
        "shards/out/.build/settings.json",
        "shards/.build/other",
        "shards/out/shards/mine-all-000000.tar",
    )
    table(tmp_path / "clips.csv", "path,captions", [["a.flac", "a dog"]])
    found = read(Storage(tmp_path), "mine")
    assert found.orphans["path"].to_pylist() == ["shards/b.flac"] and not any("tar" in note for note in found.notes)


@pytest.mark.parametrize("split", ["x" * 200, "\U0001f50a" * 20, "a/b", "a,b"])
def test_a_split_that_cannot_be_part_of_a_file_name_is_refused(tmp_path: Path, split: str) -> None:
    table(tmp_path / "clips.csv", "path,captions,split", [["ok.wav", "x", "train"], ["a.wav", "x", split]])
    with pytest.raises(InputError, match="split's name") as caught:
        catalogue(tmp_path)
    assert caught.value.row == 3


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_table_with_other_signs_between_its_cells_says_what_to_do(tmp_path: Path, sign: str) -> None:
    (tmp_path / "clips.csv").write_text(f"path{sign}caption\na.wav{sign}a dog\n")
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match="put a comma between the cells"):
        catalogue(tmp_path)


@pytest.mark.parametrize(("name", "text"), [("clips.csv", "path,caption\r\n\r\n"), ("clips.jsonl", "\n")])
def test_a_table_without_rows_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    touch(tmp_path, "a.wav")
    with pytest.raises(InputError, match="the table has no rows"):
        catalogue(tmp_path)


def test_a_caption_that_begins_with_a_bracket_is_written_as_a_list(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,caption", [["a.wav", "[music] a song"]])
    with pytest.raises(InputError, match=r'\["\[music\] a song"\]'):
        catalogue(tmp_path)
    table(tmp_path / "clips.csv", "path,caption", [["a.wav", '["[music] a song"]']])
    assert texts(catalogue(tmp_path)["mine/all/a"]) == ["[music] a song"]


def test_paths_that_differ_from_a_file_in_capitals_or_slashes_are_named(tmp_path: Path) -> None:
    table(
        tmp_path / "clips.csv", "path,caption", [["dogs\\A.WAV", "x"], ["b.wav", "y"], ["C.wav", "z"], ["d.wav", "w"]]
    )
    touch(tmp_path, "dogs/a.wav", "b.wav", "c.wav")
    found = read(Storage(tmp_path), "mine")
    (note,) = found.notes
    assert note.startswith("paths that name no file, but would with other capitals or slashes: 2, such as dogs\\A.WAV")
    assert [row["path"] for row in by_id(found.catalogue).values()] == [None, "b.wav", None, None]
