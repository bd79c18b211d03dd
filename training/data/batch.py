"""A rank's part of a global batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A rank's part of a global batch of ``b`` samples.

    Attributes:
        features: ``[b, S, F, T]`` float32, S segments of each clip.
        frames: ``[b, S]`` int64, how many frames of a segment hold sound; 0: the whole segment is padding.
        tokens: ``[b, N]`` int64; token_mask: ``[b, N]`` bool.
        clip, caption, group, kin: ``[b]`` int64, stable ids.
        seeds: ``[b]`` int64, the seed of what the model draws at random for each sample.
        valid: ``[b]`` bool; False: the sample is damaged and must not count in the loss.
        keys, texts: the names and captions of the ``b`` samples.
        failures: one description of each damaged sample.
    """

    features: Tensor
    frames: Tensor
    tokens: Tensor
    token_mask: Tensor
    clip: Tensor
    caption: Tensor
    group: Tensor
    kin: Tensor
    seeds: Tensor
    valid: Tensor
    keys: list[str]
    texts: list[str]
    failures: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which it is copied to a GPU while the GPU computes."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)
