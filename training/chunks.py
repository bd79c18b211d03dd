"""Parts of a batch, for steps that encode it piece by piece."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from training.data.batch import Batch


def rows(batch: Batch, chosen: slice | Tensor) -> Batch:
    """Some samples of a batch; ``chosen`` is a slice, or ``[b]`` bool."""
    kept = torch.arange(len(batch))[chosen.cpu() if isinstance(chosen, Tensor) else chosen].tolist()
    if len(kept) == len(batch):
        return batch
    values = {each.name: getattr(batch, each.name) for each in fields(batch)}
    tensors: dict[str, Any] = {name: value[chosen] for name, value in values.items() if isinstance(value, Tensor)}
    return replace(batch, **tensors, keys=[batch.keys[i] for i in kept], texts=[batch.texts[i] for i in kept])


def silence(batch: Batch) -> Batch:
    """One sample of silence with one token, shaped as the batch's, for a rank that has none."""

    def one(tensor: Tensor) -> Tensor:
        return tensor.new_zeros((1, *tensor.shape[1:]))

    tensors = {each.name: getattr(batch, each.name) for each in fields(batch)}
    filled: dict[str, Any] = {name: one(value) for name, value in tensors.items() if isinstance(value, Tensor)}
    filled["frames"][:, 0] = 1
    filled["token_mask"][:, 0] = True
    return replace(batch, **filled, keys=[""], texts=[""])
