"""What commands refuse before they take the time to load a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.earshot import main


@pytest.mark.parametrize("command", ["analyse", "embed", "evaluate", "mine", "moments", "scores", "teach"])
def test_a_mistyped_split_is_refused_before_the_model_is_opened(
    command: str, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if command in ("evaluate", "moments") else ["--out", str(tmp_path / "out")]
    no_model = str(tmp_path / "no model is here")
    assert main([command, no_model, "--shards", str(build), "--split", "clotho/evalution", *out]) == 2
    told = capsys.readouterr().err
    assert "the shards have no such split (found 'clotho/evalution')" in told and "clotho/evaluation" in told
