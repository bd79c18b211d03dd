"""Ranks of the tests: processes of this machine, forked from a server that has imported what all of them need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

# Importing takes seconds a process.  The second part is what libraries import when a first model is made and sharded:
# of the 5.3 s of processor time that a first run of three steps takes in a rank, 4.6 s.
PRELOADED = (
    "tests.training.engine.test_step",
    "tests.training.engine.test_equivalence",
    "training.run.loop",
    "training.models.hub",
    "transformers.models.roberta.modeling_roberta",
    "hear21passt.models.passt",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "networkx",
    "deepspeed.module_inject",
    "deepspeed.runtime.zero.stage3",
)


def on_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> None:
    """Run ``function(rank, *arguments)`` on ``world`` processes to their end; an error of one is raised here."""
    context = start_on_ranks(function, world, *arguments)
    while not context.join():
        pass


def start_on_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> Any:
    """As `on_ranks`, which waits for the processes that this starts; gives their `ProcessContext`."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    return mp.start_processes(function, arguments, nprocs=world, join=False, start_method="forkserver")
