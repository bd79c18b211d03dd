"""A build of noise for the tests of the loader, and what one process reads of it."""

from __future__ import annotations

import pytest

from tests.training.data.loading import loader, samples
from tests.training.data.shards import Build, row, write_build


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    rows = [row(n, duration_s=0.4 + n % 7 * 0.6) for n in range(30)]
    rows += [row(n, "wavcaps", "train", duration_s=2.0) for n in range(9)]
    return write_build(tmp_path_factory.mktemp("build"), rows)


@pytest.fixture(scope="module")
def whole(build: Build) -> list[list[tuple]]:
    """The samples of each step of epoch 1, by one rank in one process."""
    return [samples([batch]) for batch in loader(build).epoch(1)]
