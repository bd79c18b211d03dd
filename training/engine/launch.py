"""Joining the ranks that a launcher started."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist

from sharding.common.processes import die_with_parent
from training.engine.distributed import Group, connect


@contextlib.contextmanager
def ranks() -> Iterator[Group]:
    """Join the ranks that the launcher started (or be alone), and leave them properly at the end.

    torchrun, the deepspeed launcher and Ray Train say by environment variables which rank this process is.
    """
    made = not dist.is_initialized()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    group = connect(_backend())
    if made and group.size > 1:  # a rank whose launcher was killed would go on writing into the same run
        die_with_parent()
    try:
        yield group
    finally:
        if made and dist.is_initialized():  # a process that ends with its group open aborts
            deepspeed = sys.modules.get("deepspeed")
            if deepspeed is not None and deepspeed.comm.is_initialized():
                deepspeed.comm.destroy_process_group()
            with contextlib.suppress(Exception):
                dist.destroy_process_group()


def join_deepspeed() -> None:
    """Make the ranks known to DeepSpeed, which takes seconds to import: only those who train need it."""
    import deepspeed

    if not dist.is_initialized():  # it needs a process group, if only of one process
        dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")
    # gloo works without the shared-memory kernel, which DeepSpeed would compile at this moment
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=_backend(), auto_mpi_discovery=False, verbose=False)


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"
