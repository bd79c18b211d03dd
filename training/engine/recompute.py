"""Activation checkpointing: keep only each block's input for the backward pass and run the block again there."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import checkpoint

from training.engine.dropout import replayed
from training.tasks.base import Task


def recompute_blocks(task: Task) -> None:
    """Wrap every block of the task's towers in torch's checkpoint wrapper; names of parameters stay."""
    blocks = {id(block) for tower in task.towers().values() for block in tower.blocks()}
    apply_activation_checkpointing(
        task,
        checkpoint_wrapper_fn=lambda block: checkpoint_wrapper(block, checkpoint_fn=_recomputed),
        check_fn=lambda module: id(module) in blocks,
    )


def _recomputed(block: Any, *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return block(*inputs, **options)
    return checkpoint(replayed(block), *inputs, use_reentrant=False, **options)
