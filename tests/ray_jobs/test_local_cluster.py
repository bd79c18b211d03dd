"""Real ``ray job submit`` against a cluster of this machine, as the demo uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.local_cluster import local_cluster, submit
from sharding.errors import InputError
from sharding.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.sharding.corpora import write_corpus


@pytest.mark.slow
def test_a_submitted_job_builds_shards_and_a_failing_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    build = ["python", "ray_jobs/build_shards.py", f"--source=mine={corpus}", "--protect=mine/test"]
    with local_cluster(1, tmp_path / "ray.log") as address:
        submit(address, REPOSITORY, [*build, f"--out={out}"], tmp_path / "build.log")
        assert Manifest.open(out).table.num_rows > 8
        assert "probe: 14/14 clips" in capsys.readouterr().out
        with pytest.raises(InputError, match=r"build_shards\.py failed"):
            submit(address, REPOSITORY, [*build, f"--out={out}", "--rate=8000"], tmp_path / "again.log")
        assert "probe.form.rate: 32000 there, 8000 now" in (tmp_path / "again.log").read_text()
