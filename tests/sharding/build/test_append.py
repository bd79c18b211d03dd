"""``append``: a new dataset beside old shards that stay as they are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from sharding.build.append import append
from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from sharding.sources.protected import parse_protect
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, tree, write_extra


@pytest.fixture(scope="module")
def grown(built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(the build, the folder that was added, what `append` said)."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(built, folder / "out")
    extra = write_extra(folder / "extra")
    return folder / "out", extra, append(str(folder / "out"), {}, {"extra": str(extra)}, LocalRunner(1))


def fates(out: Path) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in Storage(out).read_table("fates.parquet").to_pylist()}


def test_new_clips_yield_to_protected_and_kept_old_ones(grown: tuple[Path, Path, dict[str, Any]]) -> None:
    out, _, result = grown
    found = {clip: (row["fate"], row["reason"], row["other"]) for clip, row in fates(out).items()}
    assert found["extra/train/leaks"] == ("withheld", "shares_sound_with_protected", "mine/test/held")
    assert found["extra/train/n0copy"][:2] == ("duplicate", "same_interval")
    assert found["extra/train/n0"][0] == found["extra/train/n1"][0] == "written"
    assert result["added"] == {"extra": {"duplicate": 1, "withheld": 1, "written": 3}}
    assert verify(str(out), "decode", LocalRunner(1)) == []
    manifest = Manifest.open(out)
    assert manifest.dataset["settings"]["sources"] == ["extra", "mine"]
    assert manifest.dataset["fates"] == {"duplicate": 2, "failed": 2, "withheld": 2, "written": 13}


def test_old_shards_and_fates_stay_and_kin_reaches_across(
    grown: tuple[Path, Path, dict[str, Any]], built: Path
) -> None:
    out, _, _ = grown
    old, new = tree(built / "shards"), tree(out / "shards")
    assert {name: new[name] for name in old} == old
    before, after = fates(built), fates(out)
    for clip, row in before.items():
        assert {name: after[clip][name] for name in ("fate", "reason", "other", "keys")} == {
            name: row[name] for name in ("fate", "reason", "other", "keys")
        }
    kin = dict(zip(*(Manifest.open(out).table[name].to_pylist() for name in ("clip_id", "kin")), strict=True))
    assert kin["extra/train/of_a1"] == kin["mine/train/a1"]  # a part of it: never each other's negatives


def test_what_is_known_is_neither_decoded_nor_compared_again(built: Path, corpus: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    shutil.copytree(corpus, mine)
    build(settings_for(mine), str(out), LocalRunner(1))
    shutil.rmtree(mine)  # whoever looks for it fails
    append(str(out), {}, {"extra": str(write_extra(tmp_path / "extra"))}, LocalRunner(2))
    assert fates(out)["extra/train/leaks"]["fate"] == "withheld"


def test_decisions_that_a_new_build_would_change_are_reported_and_not_applied(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, extra = tmp_path / "out", tmp_path / "better"
    shutil.copytree(built, out)
    extra.mkdir()
    sf.write(extra / "a1.wav", noise(1, 3.0), RATE, subtype="PCM_16")
    (extra / "clips.csv").write_text("path,captions\na1.wav,the same sound again\n")
    assert main(["append", str(out), "--source", f"earlier={extra}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["differences"] == 1
    assert result["examples"][0] == {
        "clip_id": "mine/train/a1", "fate": "written", "reason": "kept", "other": None,
        "anew_fate": "duplicate", "anew_reason": "same_interval", "anew_other": "earlier/all/a1",
    }  # fmt: skip
    found = fates(out)
    assert found["mine/train/a1"]["fate"] == "written"
    assert found["earlier/all/a1"]["other"] == "mine/train/a1"
    assert Storage(out).read_table("differences.parquet").num_rows == 1


def test_old_training_clips_that_leak_into_added_protected_ones_are_a_warning(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(corpus)
    protect = dataclasses.replace(settings.fates, protect=parse_protect("mine/test,later/test"))
    out, later = tmp_path / "out", tmp_path / "later"
    build(dataclasses.replace(settings, fates=protect), str(out), LocalRunner(1))
    later.mkdir()
    sf.write(later / "a1.wav", noise(1, 3.0), RATE, subtype="PCM_16")
    (later / "clips.csv").write_text("path,split,captions\na1.wav,test,held out\n")
    assert main(["append", str(out), "--source", f"later={later}"]) == 0
    shown = capsys.readouterr().out
    assert "WARNING: 1 old training clips share sound" in shown
    now, anew = "written (kept)", "withheld (shares_sound_with_protected) by later/test/a1"
    assert f"mine/train/a1: {now}; in a new build: {anew}" in shown
    assert fates(out)["later/test/a1"]["fate"] == "written"


def test_a_grown_build_grows_again_is_retried_and_planned_anew(
    grown: tuple[Path, Path, dict[str, Any]], corpus: Path, tmp_path: Path
) -> None:
    out, more = tmp_path / "out", tmp_path / "more"
    shutil.copytree(grown[0], out)
    more.mkdir()
    sf.write(more / "x.flac", noise(900, 2.0), RATE, subtype="PCM_16")
    sf.write(more / "y.flac", noise(500, 3.0), RATE, subtype="PCM_16")
    (more / "clips.csv").write_text("path,captions\nx.flac,something new\ny.flac,like n0\n")
    append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    assert fates(out)["more/all/y"]["fate"] == "duplicate"
    assert verify(str(out), "decode", LocalRunner(1)) == []
    settings = settings_for(corpus)
    together = {"mine": str(corpus), "extra": str(grown[1]), "more": str(more)}
    whole = type(settings)(sources=together, probe=settings.probe, fates=settings.fates, plan=settings.plan)
    build(whole, str(tmp_path / "fresh"), LocalRunner(1))
    build(whole, str(out), LocalRunner(1), retry="missing")
    visible = {name: data for name, data in tree(out).items() if not name.startswith(".build/")}
    assert visible == {n: data for n, data in tree(tmp_path / "fresh").items() if not n.startswith(".build/")}


def test_the_same_append_again_changes_nothing(grown: tuple[Path, Path, dict[str, Any]]) -> None:
    out, extra, result = grown
    before = tree(out)
    assert append(str(out), {}, {"extra": str(extra)}, LocalRunner(1)) == result
    assert tree(out) == before


def test_append_refuses_known_names_no_datasets_and_unfinished_builds(
    grown: tuple[Path, Path, dict[str, Any]], built: Path, corpus: Path, tmp_path: Path
) -> None:
    out, extra, _ = grown
    with pytest.raises(InputError, match="name is in the build already"):
        append(str(out), {}, {"extra": str(corpus)}, LocalRunner(1))
    with pytest.raises(InputError, match="name is in the build already"):
        append(str(built), {}, {"mine": str(corpus)}, LocalRunner(1))
    with pytest.raises(InputError, match="no finished build"):
        append(str(tmp_path / "nothing"), {}, {"extra": str(extra)}, LocalRunner(1))
    with pytest.raises(InputError, match="no dataset to append"):
        append(str(built), {}, {}, LocalRunner(1))
    half = tmp_path / "half"
    shutil.copytree(built, half)
    (half / ".build/append/.build").mkdir(parents=True)
    settings = json.loads((half / ".build/settings.json").read_text())
    (half / ".build/append/.build/settings.json").write_text(json.dumps(settings | {"sources": {"x": "/y"}}))
    (half / ".build/append/.build/catalogue.json").write_text("{}")  # it had read its datasets
    with pytest.raises(InputError, match="another append was interrupted"):
        append(str(half), {}, {"extra": str(extra)}, LocalRunner(1))


def test_an_exclusion_list_that_changed_is_refused(corpus: Path, tmp_path: Path) -> None:
    ids, out = tmp_path / "ids.csv", tmp_path / "out"
    ids.write_text("sound_id\n1\n")
    build(dataclasses.replace(settings_for(corpus), exclude=(str(ids),)), str(out), LocalRunner(1))
    ids.write_text("sound_id\n1\n2\n")
    with pytest.raises(InputError, match="exclusion list has changed"):
        append(str(out), {}, {"extra": str(write_extra(tmp_path / "extra", 1.5))}, LocalRunner(1))


def test_a_build_with_fingerprints_of_another_version_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "out")
    settings = tmp_path / "out" / ".build" / "settings.json"
    plain = json.loads(settings.read_text())
    del plain["probe"]["fingerprint"]
    settings.write_text(json.dumps(plain))
    with pytest.raises(InputError, match="fingerprints are those of another version"):
        append(str(tmp_path / "out"), {}, {"extra": str(tmp_path)}, LocalRunner(1))
