"""What a dataset's folder may hold besides plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sharding.catalogue.table import build_catalogue
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.generic import read
from sharding.sources.tree import Tree, climbs
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
