"""Ranks of the tests: processes of this machine, forked from a server that has imported what all of them need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

# importing takes seconds a process
PRELOADED = (
    "tests.training.engine.test_step",
    "tests.training.engine.test_equivalence",
    "training.run.loop",
    "training.models.hub",
)


def on_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> None:
    """Run ``function(rank, *arguments)`` on ``world`` processes to their end; an error of one is raised here."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    mp.start_processes(function, arguments, nprocs=world, start_method="forkserver")
