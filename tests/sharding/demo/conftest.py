"""A synthesised corpus that tests read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharding.demo.synthesis import synthesise


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "corpus"
    synthesise(out, seed=3, clips=40)
    return out


@pytest.fixture(scope="session")
def truth(corpus: Path) -> dict:
    return json.loads((corpus / "truth.json").read_text())
