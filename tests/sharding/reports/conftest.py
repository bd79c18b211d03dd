"""A small build with one clip of each kind, for the tests of reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.demo.scenes import make_scene
from sharding.demo.waves import RATE
from sharding.fates.decide import FateSettings
from sharding.reports.contents import BuildContents
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from sharding.sources.protected import parse_protect

NASTY = '<script>alert("x")</script> & a dog barks'


def tone(seed: int, seconds: float = 6.0) -> np.ndarray:
    return make_scene(np.random.default_rng(seed), ("dog", "rain"), seconds).wave


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five kinds of clip: written, a copy of it, one that leaks, a broken one, and a protected one."""
    root = tmp_path_factory.mktemp("report")
    source = root / "mine"
    source.mkdir()
    rows = []
    for name, seed, split in (("one", 1, "train"), ("two", 2, "train"), ("held", 3, "test"), ("leak", 3, "train")):
        sf.write(source / f"{name}.wav", tone(seed), RATE, subtype="PCM_16")
        rows.append({"path": f"{name}.wav", "captions": [NASTY, "A dog barks."], "split": split, "licence": "CC0"})
    shutil.copy(source / "one.wav", source / "copy.wav")
    (source / "page.flac").write_bytes(b"<html>429</html>")
    for name in ("copy.wav", "page.flac"):
        rows.append({"path": name, "captions": ["A dog."], "split": "train"})
    (source / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = BuildSettings(sources={"mine": str(source)}, fates=FateSettings(protect=parse_protect("mine/test")))
    build(settings, str(root / "out"), LocalRunner(1))
    return root / "out"


@pytest.fixture(scope="session")
def contents(reported: Path) -> BuildContents:
    return BuildContents(Manifest.open(reported))
