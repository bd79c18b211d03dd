"""``reshard``: what a build with that size would have been, without decoding anything."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_extra


def visible(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if not name.startswith(".build/")}


@pytest.mark.parametrize("size", [1, 250_000, 10**9])
def test_the_result_is_the_build_of_that_size(built: Path, corpus: Path, tmp_path: Path, size: int) -> None:
    result = reshard(str(built), str(tmp_path / "new"), size, LocalRunner(1))
    if size == 250_000:
        build(settings_for(corpus, size), str(tmp_path / "fresh"), LocalRunner(2))
        assert visible(tmp_path / "new") == visible(tmp_path / "fresh")
    assert verify(str(tmp_path / "new"), "full", LocalRunner(1)) == []
    old, new = Manifest.open(built).table, Manifest.open(tmp_path / "new").table
    for name in ("key", "audio_sha256", "json_sha256", "captions", "kin"):
        assert new[name].to_pylist() == old[name].to_pylist()
    assert result["shards"] == {1: old.num_rows, 250_000: result["shards"], 10**9: 2}[size]


def test_the_result_can_be_gone_on_with(built: Path, corpus: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    reshard(str(built), str(new), 10**6, LocalRunner(1))
    before = tree(new)
    build(settings_for(corpus, 10**6), str(new), LocalRunner(1))
    assert {name: data for name, data in tree(new).items() if name in before} == before
    append(str(new), {}, {"extra": str(write_extra(tmp_path / "extra"))}, LocalRunner(1))
    assert verify(str(new), "decode", LocalRunner(1)) == []


def test_a_build_without_its_work_folder_is_resharded_too(built: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(built, bare, ignore=shutil.ignore_patterns(".build"))
    reshard(str(bare), str(tmp_path / "new"), 10**6, LocalRunner(1))
    assert verify(str(tmp_path / "new"), "full", LocalRunner(1)) == []


def test_it_goes_to_an_object_store(built: Path, s3: str, tmp_path: Path) -> None:
    out = Storage(f"{s3}/{tmp_path.name}")
    reshard(str(built), out.url, 10**6, LocalRunner(1))
    assert verify(out.url, "full", LocalRunner(1)) == []


def test_damage_is_not_copied_on(built: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(built, bad)
    row = Manifest.open(bad).table.to_pylist()[2]
    path = bad / "shards" / row["shard"]
    contents = bytearray(path.read_bytes())
    contents[row["json_offset"] + 5] ^= 1
    path.write_bytes(contents)
    with pytest.raises(InputError, match=re.escape(row["key"])):
        reshard(str(bad), str(tmp_path / "new"), 10**6, LocalRunner(1))
    assert not (tmp_path / "new/dataset.json").exists()


def test_bad_targets_are_refused(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        reshard(str(built), str(tmp_path), 10**6, LocalRunner(1))
    with pytest.raises(InputError, match="over those that are read"):
        reshard(str(built), str(built), 10**6, LocalRunner(1))
    new = tmp_path / "new"
    reshard(str(built), str(new), 10**6, LocalRunner(1))
    with pytest.raises(InputError, match="another size of shards"):
        reshard(str(built), str(new), 10**7, LocalRunner(1))
    with pytest.raises(SystemExit) as left:
        main(["reshard", str(built), "--out", str(new), "--shard-size", "big"])
    assert left.value.code == 2 and "not a size: 'big'" in capsys.readouterr().err
