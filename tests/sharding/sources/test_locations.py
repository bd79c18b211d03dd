"""Where a dataset lies makes no difference: in a folder, in zip archives, in an object store."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sharding.build.run import build
from sharding.catalogue.table import build_catalogue
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.demo.layouts import Clotho, Tacos
from sharding.demo.waves import RATE
from sharding.settings import BuildSettings


def write_tacos(root: Path) -> None:
    layout = Tacos(root)
    rng = np.random.default_rng(5)
    for index in range(4):
        wave = (0.2 * rng.standard_normal(3 * RATE)).astype(np.float32)
        layout.add(
            "test" if index == 3 else "development", str(1000 + index), wave, f"a noise, number {index}",
            [(f"the noise {index} begins", 0.0, 1.0)], original_s=9.0, span_s=(1.0, 4.0),
            uploader="somebody", licence="CC0", title=f"noise {index}",
        )  # fmt: skip
    layout.finish()


def write_clotho(root: Path) -> None:
    layout = Clotho(root)
    rng = np.random.default_rng(6)
    for index, split in enumerate(("development", "development", "evaluation")):
        wave = (0.2 * rng.standard_normal(3 * RATE)).astype(np.float32)
        captions = [f"noise {index} in wording {wording}" for wording in range(5)]
        layout.add(split, f"a.noise {index}.wav", wave, captions, str(77 + index), "me", None, "CC0", ["noise"])
    layout.finish()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    write_tacos(root / "tacos")
    write_clotho(root / "clotho")
    return root


def upload(folder: Path, place: Storage, zipped: bool) -> None:
    """Copy a tree; with ``zipped`` its audio goes into one archive, half of it stored and half deflated."""
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
            name = path.relative_to(folder).as_posix()
            if zipped and path.suffix in (".mp3", ".wav"):
                archive.write(path, name, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2])
            else:
                place.write(name, path.read_bytes())
    if zipped:
        place.write("audio.zip", inside.getvalue())


def roots(place: str) -> dict[str, str]:
    return {name: f"{place}/{name}" for name in ("tacos", "clotho")}


def sounds(out: Storage) -> dict[str, bytes]:
    """The audio of every sample; its JSON names the file that it came from."""
    found = {}
    for name in out.list("shards"):
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(out.read(name))) as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    assert content is not None
                    found[f"{name}/{member.name}"] = content.read()
    return {name: content for name, content in found.items() if name.endswith(".flac")}


@pytest.mark.parametrize("where", ["zip", "s3", "s3 zip"])
def test_a_build_is_the_same_wherever_its_sounds_lie(
    folders: Path, where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / "copy")
    if "s3" in where:
        place = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    for name in ("tacos", "clotho"):
        upload(folders / name, Storage(f"{place}/{name}"), "zip" in where)
    built: dict[str, dict[str, bytes]] = {}
    for at in (str(folders), place):
        out = Storage(tmp_path / f"out{len(built)}")
        build(BuildSettings(roots=roots(at)), out.url, LocalRunner(1))
        built[at] = sounds(out)
        assert set(out.read_table("fates.parquet")["fate"].to_pylist()) == {"written"}
    assert len(built[place]) == 7
    assert built[place] == built[str(folders)]


def test_a_catalogue_of_an_object_store_equals_that_of_a_folder(folders: Path, s3: str, tmp_path: Path) -> None:
    place = f"{s3}/{tmp_path.name}"
    for name in ("tacos", "clotho"):
        upload(folders / name, Storage(f"{place}/{name}"), False)
    found = [build_catalogue(roots(at)) for at in (str(folders), place)]
    assert found[0].table.equals(found[1].table)
    assert found[0].orphans.equals(found[1].orphans)
