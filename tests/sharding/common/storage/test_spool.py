from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from sharding.common.storage.failures import is_full
from sharding.common.storage.spool import Spool


def test_a_large_spool_is_read_back_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = os.urandom(40 << 20)
    with Spool() as spool:
        spool.write(content[: 10 << 20])
        spool.write(content[10 << 20 :])
        spool.seek(0)
        assert spool.read() == content
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_temporary_files_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool() as spool:
        spool.rollover()
        full = os.open("/dev/full", os.O_WRONLY)  # a device that has no room, in the place of the temporary file
        os.dup2(full, spool.fileno())
        os.close(full)
        with pytest.raises(OSError, match="TMPDIR") as caught:
            spool.write(bytes(1 << 20))
        assert is_full(caught.value) and caught.value.filename.startswith(str(tmp_path))
