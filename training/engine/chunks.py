"""Parts of a batch and of its sides, for steps that encode it piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from training.data.batch import Batch
from training.models.heads.base import Side

Sides = tuple[Side, Side]  # audio, text


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


def joined(chunks: Sequence[Sides]) -> Sides:
    """The sides of all chunks put together, as leaves that collect gradient."""
    audio, text = (
        tuple(torch.cat(parts) for parts in zip(*(sides[which] for sides in chunks), strict=True)) for which in (0, 1)
    )
    return _leaves(audio), _leaves(text)


def weighted_sum(parts: Side, shares: Sequence[Tensor | None], start: int, device: torch.device) -> Tensor:
    """A number whose gradient by each part is its chunk's share of the loss's gradient.

    Args:
        parts: tensors of one chunk, ``[c, ...]`` each.
        shares: the loss's gradient by the same tensors of the whole batch, ``[b, ...]``; None where it has none.
        start: the chunk's first place in the batch.
        device: where the number is.
    """
    total = torch.zeros((), device=device)
    for part, share in zip(parts, shares, strict=True):
        if part.requires_grad and share is not None:
            total = total + (part * share[start : start + len(part)]).sum()
    return total


def detached(side: Side) -> Side:
    """The same numbers, out of the graph."""
    return tuple(tensor.detach() for tensor in side)


def _leaves(side: Side) -> Side:
    return tuple(tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in side)
