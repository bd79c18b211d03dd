"""What the training tests share: a small build of sounds, and a group of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import write_sounds
from training.engine.distributed import Group
from training.engine.launch import ranks


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in the processes that tests start: sums round differently with another number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("build")
    write_sounds(root)
    return root


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with ranks() as alone:
        yield alone
