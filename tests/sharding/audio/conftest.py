"""Every kind of sound file, made once."""

from __future__ import annotations

import pytest

from tests.sharding.audio.odd_sounds import EVERY


@pytest.fixture(scope="session")
def sounds() -> dict[str, bytes]:
    return {name: make() for name, make in EVERY.items()}
