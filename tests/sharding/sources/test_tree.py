"""What a dataset's folder may hold besides plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sharding.catalogue.table import build_catalogue
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.probe.batch import Batch, Prober
from sharding.probe.clip import ProbeSettings
from sharding.sources.generic import read
from sharding.sources.tree import Tree, climbs, folders, stem_of
from tests.sharding.sources.trees import archive, by_id, clotho_split, table, touch


def own(folder: Path, *paths: str) -> None:
    table(folder / "clips.csv", "path,captions", [[path, f"caption of {path}"] for path in paths])


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    root, secret = tmp_path / "mine", tmp_path / "secret"
    touch(secret, "key.wav", "folder/in.wav")
    own(root, "key.wav", "folder/in.wav", "inside.wav", "gone.wav")
    touch(root, "real.wav")
    (root / "key.wav").symlink_to(secret / "key.wav")
    (root / "folder").symlink_to(secret / "folder", target_is_directory=True)
    (root / "inside.wav").symlink_to("real.wav")
    found = build_catalogue({}, {"mine": str(root)})
    problems = {name.rpartition("/")[2]: row["problem"] for name, row in by_id(found.table).items()}
    assert problems == {"key": "out_of_root", "in": "out_of_root", "inside": None, "gone": "missing"}
    assert found.orphans["path"].to_pylist() == ["real.wav"]
    assert "--follow-links" in " ".join(found.notes["mine"])
    followed = build_catalogue({}, {"mine": str(root)}, follow_links=True)
    assert followed.table["problem"].to_pylist().count(None) == 3
    with pytest.raises(InputError, match="leads out") as caught:
        Storage(root, follow_links=False).read("key.wav")
    assert "--follow-links" in str(caught.value)


def test_a_copy_inside_the_folder_is_preferred_to_a_link_that_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "clotho"
    clotho_split(root, "development", ["a.wav"])
    touch(tmp_path, "a.flac")
    touch(root, "development/a.wav")
    (root / "development/a.flac").symlink_to(tmp_path / "a.flac")
    (row,) = build_catalogue({"clotho": str(root)}).table.to_pylist()
    assert (row["path"], row["problem"]) == ("development/a.wav", None)


def test_tables_and_archives_to_which_links_lead_out_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    own(tmp_path / "other", "a.wav")
    archive(tmp_path / "other/sounds.zip", "a.wav")
    root.mkdir()
    (root / "sounds.zip").symlink_to(tmp_path / "other/sounds.zip")
    assert Tree(Storage(root, follow_links=False)).audio == []
    (root / "clips.csv").symlink_to(tmp_path / "other/clips.csv")
    with pytest.raises(InputError, match="leads out"):
        build_catalogue({}, {"mine": str(root)})


def test_links_of_a_hugging_face_cache_lead_to_its_own_files(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--cvssp--WavCaps"
    touch(cache, "blobs/1234")
    own(cache / "snapshots/abcd", "a.wav", "b.wav")
    (cache / "snapshots/abcd/a.wav").symlink_to("../../blobs/1234")
    (cache / "snapshots/abcd/b.wav").symlink_to("../../other")
    touch(cache, "other")
    found = build_catalogue({}, {"mine": str(cache / "snapshots/abcd")})
    assert found.table["problem"].to_pylist() == [None, "out_of_root"]


@pytest.mark.parametrize("name", ["clips.csv", "sounds.zip"])
@pytest.mark.timeout(20)
def test_a_named_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    own(tmp_path, "a.wav")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="not a regular file") as caught:
        read(Storage(tmp_path), "mine")
    assert name in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "..", "C:\\x", "a\\..\\..\\b", "a\0b"])
def test_names_that_point_out_of_the_folder(path: str) -> None:
    assert climbs(path)
    assert not climbs("a/../b") and not climbs("..a")


def test_archives_that_must_be_unpacked_first_name_the_command(tmp_path: Path) -> None:
    touch(tmp_path, "in/AudioSet_SL.zip", "in/AudioSet_SL.z01", "audio.7z", "a.tar.gz", "plain.wav")
    advice = Tree(Storage(tmp_path)).advice
    assert len(advice) == 3
    assert any("zip -FF in/AudioSet_SL.zip --out in/AudioSet_SL_merged.zip" in line for line in advice)
    assert any("7z x audio.7z" in line for line in advice)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(InputError, match="not a whole zip archive") as caught:
        Tree(Storage(tmp_path))
    assert "a.zip" in str(caught.value.file)


def test_two_tables_of_one_name_are_refused_unless_they_are_equal(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text("x\n1\n")
    assert Tree(Storage(tmp_path)).one("t.csv") == "a/t.csv"
    (tmp_path / "b/t.csv").write_text("x\n2\n")
    with pytest.raises(InputError, match="two different tables of one name"):
        Tree(Storage(tmp_path)).one("t.csv")
    assert Tree(Storage(tmp_path)).one("absent.csv") is None


def test_of_several_copies_the_one_with_the_least_loss_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.mp3", "a/x.mp3", "c/x.WAV", "d/x.flac", "x.txt")
    index = Tree(Storage(tmp_path)).index()
    assert index.all("x") == ["d/x.flac", "c/x.WAV", "a/x.mp3", "b/x.mp3"]
    assert index.one("x") == "d/x.flac" and index.one("y") is None and index.all("y") == []


def test_an_archive_counts_as_a_folder_of_its_name() -> None:
    assert folders("Zip_files/FreeSound.zip!/mnt/7.flac") == ["Zip_files", "FreeSound", "mnt"]
    assert stem_of("a/b.c.FLAC") == "b.c" and stem_of("a/b.c") == "b.c"


def test_a_file_that_becomes_a_link_after_it_was_catalogued_is_not_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "mine", tmp_path / "secret.wav"
    secret.write_bytes(b"root:x:0:0:secret")
    touch(root, "a.wav")
    own(root, "a.wav")
    clips = build_catalogue({}, {"mine": str(root)}).table
    (root / "a.wav").unlink()
    (root / "a.wav").symlink_to(secret)
    work = Storage(tmp_path / "work")
    Prober({"mine": Storage(root, follow_links=False)}, work, ProbeSettings())(Batch("000000", clips))
    (fact,) = work.read_table("facts/000000.parquet").to_pylist()
    assert fact["error"] == "out_of_root" and "secret" not in str(fact)
