from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.wavcaps import read
from tests.sharding.sources.trees import archive, by_id, texts, touch, wavcaps_json


def item(ident: object, **more: object) -> dict:
    return {"id": ident, "caption": "A dog barks.", "audio": "wav_path", "duration": 10, **more}


def full(root: Path) -> None:
    wavcaps_json(root, "FreeSound", "fsd_final", [item("180913", file_name="UK.wav", author="T", tags=["a", "b"])])
    wavcaps_json(
        root, "BBC_Sound_Effects", "bbc_final", [item("NHU05051026", category="['Nature']", description="Cicada")]
    )
    wavcaps_json(root, "SoundBible", "sb_final", [item("2219", title="Plane", author="Daniel", duration=14.5)])
    wavcaps_json(root, "AudioSet_SL", "as_final", [item("Y-0RFKhbpFJA.wav", duration=10.0)])


def test_each_part_has_its_own_keys(tmp_path: Path) -> None:
    full(tmp_path)
    rows = by_id(read(Storage(tmp_path)).catalogue)
    sound, nature, plane, video = (
        rows[f"wavcaps/{name}"]
        for name in ("FreeSound/180913", "BBC_Sound_Effects/NHU05051026", "SoundBible/2219", "AudioSet_SL/Y-0RFKhbpFJA")
    )
    assert sound["identity"] == "freesound:180913" and sound["interval"] == {"start": 0.0, "end": 10.0}
    assert sound["keywords"] == ["a", "b"] and sound["uploader"] == "T" and sound["title"] == "UK.wav"
    assert nature["identity"] == "bbc:NHU05051026" and nature["keywords"] == ["Nature"]
    assert plane["identity"] == "soundbible:2219" and plane["published_duration_s"] == 14.5
    assert video["identity"] == "youtube:-0RFKhbpFJA" and video["interval"] is None
    assert {row["split"] for row in rows.values()} == {"train"}
    assert {caption["kind"] for row in rows.values() for caption in row["captions"]} == {"machine"}


@pytest.mark.parametrize(
    "folder", ["audio/FreeSound", "Audio/FreeSound", "waveforms/FreeSound_flac", "Zip_files/FreeSound/x"]
)
def test_audio_folders_are_found_under_all_known_spellings(tmp_path: Path, folder: str) -> None:
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("1"), item("2")])
    touch(tmp_path, f"{folder}/1.flac", f"{folder}/99.flac")
    found = read(Storage(tmp_path))
    assert found.catalogue["path"].to_pylist() == [f"{folder}/1.flac", None]
    assert found.catalogue["problem"].to_pylist() == [None, "missing"]
    assert found.orphans["path"].to_pylist() == [f"{folder}/99.flac"]


def test_equal_numbers_in_two_parts_are_different_recordings(tmp_path: Path) -> None:
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("2219")])
    wavcaps_json(tmp_path, "SoundBible", "sb_final", [item("2219")])
    touch(tmp_path, "audio/SoundBible/2219.flac")
    rows = by_id(read(Storage(tmp_path)).catalogue)
    assert rows["wavcaps/FreeSound/2219"]["problem"] == "missing"
    assert rows["wavcaps/SoundBible/2219"]["path"] == "audio/SoundBible/2219.flac"


def test_archives_are_read_in_place(tmp_path: Path) -> None:
    full(tmp_path)
    long = "mnt/fast/nobackup/scratch4weeks/xm00178/WavCaps/data/waveforms/FreeSound_flac/180913.flac"
    archive(tmp_path / "Zip_files/merged.zip", long)
    archive(tmp_path / "Zip_files/SoundBible/SoundBible.zip", "2219.flac")
    rows = by_id(read(Storage(tmp_path)).catalogue)
    assert rows["wavcaps/FreeSound/180913"]["path"] == f"Zip_files/merged.zip!/{long}"
    path = rows["wavcaps/SoundBible/2219"]["path"]
    assert path == "Zip_files/SoundBible/SoundBible.zip!/2219.flac"
    assert Storage(tmp_path).open(path).read() == b"sound"


def test_archives_that_must_be_unpacked_say_how(tmp_path: Path) -> None:
    full(tmp_path)
    touch(tmp_path, "Zip_files/FreeSound/FreeSound.zip", "Zip_files/FreeSound/FreeSound.z01", "more.7z")
    notes = " ".join(read(Storage(tmp_path)).notes)
    assert "zip -FF Zip_files/FreeSound/FreeSound.zip" in notes and "7z x more.7z" in notes


def test_a_broken_archive_is_an_error(tmp_path: Path) -> None:
    full(tmp_path)
    archive(tmp_path / "a.zip", "1.flac", "2.flac")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"a\.zip: not a whole zip archive"):
        read(Storage(tmp_path))


def test_the_short_freesound_table_adds_only_what_the_full_one_lacks(tmp_path: Path) -> None:
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("1"), item("2")])
    wavcaps_json(tmp_path, "FreeSound", "fsd_final_2s", [item("2"), item("3")])
    rows = by_id(read(Storage(tmp_path)).catalogue)
    assert [len(texts(row)) for row in rows.values()] == [1, 1, 1]
    (tmp_path / "json_files/FreeSound/fsd_final.json").unlink()
    found = read(Storage(tmp_path))
    assert found.catalogue.num_rows == 2
    assert any("only a part of FreeSound" in note for note in found.notes)


def test_an_id_that_occurs_twice_is_one_clip(tmp_path: Path) -> None:
    items = [item("1"), item("1", caption="Rain."), item("1")]
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", items)
    rows = by_id(read(Storage(tmp_path)).catalogue)
    assert texts(rows["wavcaps/FreeSound/1"]) == ["A dog barks.", "Rain."]
    assert "occurs twice" in rows["wavcaps/FreeSound/1"]["notes"][0]


def test_zero_length_and_climbing_ids(tmp_path: Path) -> None:
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("../../../escape"), item("7", duration=0.0)])
    touch(tmp_path, "audio/FreeSound/escape.flac")
    rows = by_id(read(Storage(tmp_path)).catalogue)
    assert rows["wavcaps/FreeSound/../../../escape"]["problem"] == "out_of_root"
    assert rows["wavcaps/FreeSound/7"]["interval"] is None
    assert "length zero" in rows["wavcaps/FreeSound/7"]["notes"][0]


@pytest.mark.parametrize("cut", [1, 30, 95, 150, 200])
def test_json_that_is_cut_off_names_file_and_item(tmp_path: Path, cut: int) -> None:
    path = wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("1"), item("2"), item("3")])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match="cut off") as caught:
        read(Storage(tmp_path))
    assert "fsd_final.json" in str(caught.value) and caught.value.remedy


def test_an_item_without_an_id_is_an_error(tmp_path: Path) -> None:
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", [item("1"), {"caption": "x"}])
    with pytest.raises(InputError, match=r"row 2: the item lacks id"):
        read(Storage(tmp_path))
    wavcaps_json(tmp_path, "FreeSound", "fsd_final", ["text"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="not an object"):
        read(Storage(tmp_path))


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no WavCaps table"):
        read(Storage(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        read(Storage(tmp_path / "absent"))
