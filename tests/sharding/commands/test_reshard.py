"""The command that copies a build into shards of another size."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main
from sharding.shards.manifest import Manifest


def test_it_says_how_many_shards_became_how_many(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reshard", str(built), "--out", str(tmp_path / "new"), "--shard-size", "1GB"]) == 0
    old, new = Manifest.open(built), Manifest.open(tmp_path / "new")
    shown = capsys.readouterr().out
    assert f"{old.table.num_rows} samples" in shown
    assert f"from {len(old.dataset['shards'])} shards into {len(new.dataset['shards'])}" in shown


def test_a_shard_size_is_needed(built: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["reshard", str(built), "--out", str(tmp_path / "new")])
