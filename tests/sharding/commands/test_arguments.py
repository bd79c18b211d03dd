"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main
from sharding.commands.arguments import absolute, size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1e9", 10**9),
        ("500MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("64k", 64000),
        ("64KB", 64000),
        ("1", 1),
        ("1.5M", 1500000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert size(text) == count


def test_addresses_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert absolute("s3://bucket/folder/") == "s3://bucket/folder"
    monkeypatch.chdir(tmp_path)
    assert absolute("folder/") == str(tmp_path / "folder")
    for words in (["export", "out", "--csv", "s3://bucket/csv"], ["stats", "out", "--plot", "s3://bucket/a.png"]):
        with pytest.raises(SystemExit):
            main(words)
    assert list(tmp_path.iterdir()) == []
