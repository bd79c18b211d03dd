from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.audiocaps import read
from tests.sharding.sources.trees import AUDIOCAPS, archive, by_id, table, texts, touch

DASHED = "-EQByFLFqig"


def catalogue(root: Path) -> dict:
    return by_id(read(Storage(root)).catalogue)


def test_clips_are_segments_of_videos(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(
        f'{AUDIOCAPS}\r\n1,{DASHED},20,Rain falls\r\n2,{DASHED},20,"Rain, and a dog"\r\n'.encode()
    )
    rows = catalogue(tmp_path)
    assert list(rows) == [f"audiocaps/test/{DASHED}_20"]
    row = rows[f"audiocaps/test/{DASHED}_20"]
    assert texts(row) == ["Rain falls", "Rain, and a dog"]
    assert row["identity"] == f"youtube:{DASHED}@20.000"
    assert row["interval"] == {"start": 20.0, "end": 30.0}
    assert row["problem"] == "missing"


@pytest.mark.parametrize(
    "file",
    [
        f"audio_32000Hz/test/{DASHED}_20.flac",
        f"waveforms/test/Y{DASHED}.wav",
        f"audios/unbalanced_train_segments_part01/Y{DASHED}.mp3",
        "test/11.wav",
        f"{DASHED}_20.wav",
    ],
)
def test_every_naming_of_the_audio(tmp_path: Path, file: str) -> None:
    table(tmp_path / "test.csv", AUDIOCAPS, [[10, DASHED, 20, "a"], [11, DASHED, 20, "b"]])
    touch(tmp_path, file)
    assert catalogue(tmp_path)[f"audiocaps/test/{DASHED}_20"]["path"] == file


def test_five_copies_of_a_test_clip_are_one_clip(tmp_path: Path) -> None:
    table(tmp_path / "test.csv", AUDIOCAPS, [[k, DASHED, 20, f"caption {k}"] for k in range(5)])
    touch(tmp_path, *(f"test/{k}.wav" for k in range(5)))
    found = read(Storage(tmp_path))
    assert found.catalogue["path"].to_pylist() == ["test/0.wav"]
    assert found.orphans.num_rows == 0
    assert "further copies of its audio: test/1.wav, test/2.wav" in found.catalogue["notes"][0].as_py()[0]


def test_a_file_name_without_start_is_not_used_if_the_video_has_two_segments(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", AUDIOCAPS, [[1, DASHED, 20, "a"], [2, DASHED, 90, "b"]])
    touch(tmp_path, f"train/Y{DASHED}.wav")
    found = read(Storage(tmp_path))
    assert found.catalogue["problem"].to_pylist() == ["missing", "missing"]
    assert found.orphans["path"].to_pylist() == [f"train/Y{DASHED}.wav"]


def test_numbered_files_of_another_project_are_not_taken_for_audiocap_ids(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", AUDIOCAPS, [[1, DASHED, 20, "a"]])
    touch(tmp_path, "train/1.flac", "train/1.json")
    found = read(Storage(tmp_path))
    assert found.catalogue["problem"].to_pylist() == ["missing"]
    assert found.orphans["path"].to_pylist() == ["train/1.flac"]


def test_both_releases_of_a_clip_are_one_with_the_captions_of_both(tmp_path: Path) -> None:
    table(tmp_path / "dataset/test.csv", AUDIOCAPS, [[1, DASHED, 20, "A man speaks"], [2, DASHED, 20, "Rain"]])
    table(
        tmp_path / "dataset2.0/test.csv",
        AUDIOCAPS,
        [[1, DASHED, 20, "a man  speaks"], [2, DASHED, 20, "rain falls"], [3, "abcdefghijk", 0, "new"]],
    )
    rows = catalogue(tmp_path)
    assert list(rows) == [f"audiocaps/test/{DASHED}_20", "audiocaps/test/abcdefghijk_0"]
    assert texts(rows[f"audiocaps/test/{DASHED}_20"]) == ["A man speaks", "Rain", "rain falls"]


def test_equal_captions_within_a_release_are_all_kept(tmp_path: Path) -> None:
    table(tmp_path / "test.csv", AUDIOCAPS, [[k, DASHED, 20, "Rain"] for k in range(5)])
    assert len(texts(catalogue(tmp_path)[f"audiocaps/test/{DASHED}_20"])) == 5


def test_captions_that_a_newline_broke_are_joined_and_noted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        f"{AUDIOCAPS}\n1,aaaaaaaaaaa,30,an engine with muffled\nspeech in the background\n"
        '2,bbbbbbbbbbb,30,"rain,\nthen wind"\n\n3,ccccccccccc,0,a dog\n'
    )
    rows = catalogue(tmp_path)
    assert [texts(row) for row in rows.values()] == [
        ["an engine with muffled speech in the background"], ["rain, then wind"], ["a dog"],
    ]  # fmt: skip
    notes = [row["notes"] for row in rows.values()]
    assert "row 2" in notes[0][0] and "row 4" in notes[1][0] and notes[2] == []


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ("1,aaaaaaaaaaa,0,x\n2,bbbbb", 3),
        ("1,aaaaaaaaaaa,soon,x", 2),
        ("a caption without a row", 2),
        ("1,aaaaaaaaaaa,0,x\n2,bbbbbbbbbbb,0,a, b", 3),
        ("1,aaaaaaaaaaa,0,first\nhalf\n2,bbbbbbbbbbb,0,a, b", 4),
    ],
)
def test_damaged_rows_are_errors_that_name_them(tmp_path: Path, body: str, row: int) -> None:
    (tmp_path / "train.csv").write_text(f"{AUDIOCAPS}\n{body}\n")
    with pytest.raises(InputError) as caught:
        read(Storage(tmp_path))
    assert caught.value.row == row and caught.value.remedy and "train.csv" in str(caught.value)


def test_tables_of_other_projects_lack_the_start(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "file_name,caption", [["Yaaaaaaaaaaa.wav", "x"]])
    with pytest.raises(InputError, match="lacks the columns youtube_id, start_time"):
        read(Storage(tmp_path))


def test_tables_and_audio_may_lie_in_one_zip_archive(tmp_path: Path) -> None:
    table(tmp_path / "t/train.csv", AUDIOCAPS, [[1, DASHED, 20, "a"]])
    member = f"AUDIOCAPS/audio_32000Hz/train/{DASHED}_20.mp3"
    archive(tmp_path / "AUDIOCAPS.zip", member, "__MACOSX/._x.mp3")
    found = read(Storage(tmp_path))
    assert found.catalogue["path"].to_pylist() == [f"AUDIOCAPS.zip!/{member}"]
    assert found.orphans.num_rows == 0
