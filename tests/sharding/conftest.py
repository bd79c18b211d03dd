"""A finished build that tests read and copy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.fates.decide import FateSettings
from sharding.probe.batch import Probed, Prober
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.plan import PlanSettings
from sharding.sources.protected import parse_protect
from tests.sharding.corpora import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "small", clips=3, seconds=1.5)


def settings_for(corpus: Path, shard_bytes: int = 400_000) -> BuildSettings:
    return BuildSettings(
        sources={"mine": str(corpus)},
        probe=ProbeSettings(window_s=10.0, hop_s=10.0, tail_s=2.0),
        fates=FateSettings(protect=parse_protect("mine/test")),
        plan=PlanSettings(shard_bytes=shard_bytes),
    )


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that builds of this process decode, as they do it."""
    seen: list[str] = []

    def watched(prober: Prober, batch: tuple[str, pa.Table]) -> Probed:
        seen.extend(batch[1]["clip_id"].to_pylist())
        return probe(prober, batch)

    probe = Prober.__call__
    monkeypatch.setattr(Prober, "__call__", watched)
    return seen


@pytest.fixture(scope="session")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "out"
    build(settings_for(corpus), str(out), LocalRunner(1))
    return out
