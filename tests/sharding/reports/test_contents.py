"""What a page can show of a build: its clips and their sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.common.errors import InputError
from sharding.reports.contents import BuildContents
from sharding.shards.manifest import Manifest
from tests.sharding.reports.conftest import NASTY, tone


def test_a_written_clip_sounds_from_its_shard_and_a_dropped_one_from_its_dataset(contents: BuildContents) -> None:
    kept, dropped = contents.wave("mine/train/one", 2.0, 1.0), contents.wave("mine/train/copy", 2.0, 1.0)
    assert kept is not None and dropped is not None
    assert kept[1] == dropped[1] == 32000
    assert np.allclose(kept[0], dropped[0], atol=1e-4) and len(kept[0]) == 2 * 32000


@pytest.mark.parametrize("clip", ["mine/train/page", "mine/train/nothing"])
def test_a_clip_that_cannot_be_read_has_no_player(contents: BuildContents, clip: str) -> None:
    assert contents.wave(clip) is None
    view = contents.view(clip)
    assert view.sound is None and view.picture is None
    assert view.caption == ("A dog." if clip.endswith("page") else "(no caption)")


def test_a_view_shows_the_first_caption_as_published(contents: BuildContents) -> None:
    view = contents.view("mine/train/two")
    assert view.caption == NASTY and view.sound is not None and view.sound.startswith("data:audio/mpeg")


def test_the_detail_of_a_failed_clip_is_what_the_probe_said(contents: BuildContents) -> None:
    assert "begins with" in (contents.detail("mine/train/page") or "")
    assert contents.detail("mine/train/one") is None and contents.detail("no/such/clip") is None


def test_without_its_datasets_a_build_still_plays_what_it_holds(reported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reported, out)
    settings = json.loads((out / ".build/settings.json").read_text())
    (out / ".build/settings.json").write_text(json.dumps(settings | {"sources": {"mine": str(tmp_path / "nowhere")}}))
    moved = BuildContents(Manifest.open(out))
    assert moved.wave("mine/train/two") is not None and moved.wave("mine/train/leak") is None
    shutil.rmtree(out / ".build")
    assert BuildContents(Manifest.open(out)).wave("mine/train/leak") is None


def test_evidence_is_kept_by_pair(contents: BuildContents) -> None:
    assert "source_bytes" in contents.methods["mine/train/copy", "mine/train/one"]
    assert contents.relations["mine/test/held", "mine/train/leak"].overlap_s == pytest.approx(6.0, abs=0.1)


def test_a_file_that_the_build_has_not_read_is_not_played(reported: Path, tmp_path: Path) -> None:
    out, secret = tmp_path / "out", tmp_path / "secret"
    shutil.copytree(reported, out)
    secret.mkdir()
    shutil.copy(reported.parent / "mine/leak.wav", secret / "leak.wav")
    settings = json.loads((out / ".build/settings.json").read_text())
    (out / ".build/settings.json").write_text(json.dumps(settings | {"sources": {"mine": str(secret)}}))
    assert BuildContents(Manifest.open(out)).wave("mine/train/leak") is not None  # the file itself may have moved
    sf.write(secret / "leak.wav", tone(77), 32000)
    assert BuildContents(Manifest.open(out)).wave("mine/train/leak") is None


def test_a_link_out_of_the_dataset_is_not_followed(reported: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "mine"
    shutil.copytree(reported, out)
    source.mkdir()
    (source / "leak.wav").symlink_to(reported.parent / "mine/leak.wav")
    settings = json.loads((out / ".build/settings.json").read_text())
    (out / ".build/settings.json").write_text(json.dumps(settings | {"sources": {"mine": str(source)}}))
    assert BuildContents(Manifest.open(out)).wave("mine/train/leak") is None


@pytest.mark.parametrize("forged", [[], {"roots": {}}, {"roots": {}, "sources": {"mine": 3}}])
def test_forged_settings_are_refused_by_name(forged: object, reported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reported, out)
    (out / ".build/settings.json").write_text(json.dumps(forged))
    with pytest.raises(InputError, match=r"settings\.json"):
        BuildContents(Manifest.open(out))
