"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings and published tables; named by EARSHOT_DATA, and never part of the project."""
    folder = Path(os.environ.get("EARSHOT_DATA", REPOSITORY / "../shared/data")).resolve()
    if not (folder / "metadata").is_dir():
        pytest.skip(f"no shared data: {folder} is absent (EARSHOT_DATA names it)")
    return folder
