"""The outputs of a batch that is encoded piece by piece, and the gradient of each piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.objectives.pairs.tiled import Items
from training.tasks.base import LocalSum, Outputs


def joined(chunks: Sequence[Outputs]) -> Outputs:
    """The outputs of all chunks as those of one batch; the sides are leaves that collect gradient."""
    sides = {}
    for name in chunks[0].sides:
        parts = [chunk.sides[name] for chunk in chunks]
        tensors = [torch.cat(column) for column in zip(*(part.side for part in parts), strict=True)]
        leaves = tuple(tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in tensors)
        sides[name] = Items(leaves, torch.cat([part.ids for part in parts]))
    local = {}
    for name in chunks[0].local:
        found = [chunk.local[name] for chunk in chunks]
        total = torch.stack([part.total.detach() for part in found]).sum()
        local[name] = LocalSum(total, torch.stack([part.count for part in found]).sum())
    return Outputs(sides, local)


@dataclass(frozen=True)
class Cotangents:
    """The gradient of a loss by the sides of a whole batch.

    Attributes:
        sides: by the name of a side the gradient by each of its tensors, ``[n, ...]``; None if there is none.
        device: where the sides are.
    """

    sides: Mapping[str, Sequence[Tensor | None]]
    device: torch.device

    @classmethod
    def of(
        cls, loss: Tensor, sides: Mapping[str, Items], parameters: Sequence[nn.Parameter]
    ) -> tuple[Cotangents, list[tuple[nn.Parameter, Tensor]]]:
        """The gradient of ``loss`` by leaf sides, and by the parameters on which it depends directly."""
        tensors = [tensor for items in sides.values() for tensor in items.side if tensor.requires_grad]
        asked = [*tensors, *parameters]
        found: Sequence[Tensor | None] = [None] * len(asked)
        if asked and loss.requires_grad:
            found = torch.autograd.grad(loss, asked, allow_unused=True)
        by_leaf = {id(leaf): gradient for leaf, gradient in zip(tensors, found, strict=False)}
        shares = {name: [by_leaf.get(id(tensor)) for tensor in items.side] for name, items in sides.items()}
        direct = zip(parameters, found[len(tensors) :], strict=True)
        return cls(shares, loss.device), [
            (parameter, gradient) for parameter, gradient in direct if gradient is not None
        ]

    def chunk(self, sides: Mapping[str, Items], before: Sequence[Outputs]) -> Tensor:
        """A number whose gradient by a chunk's sides is the chunk's share of the loss's gradient.

        Args:
            sides: the sides of the chunk, with gradient.
            before: the outputs of the chunks before it.
        """
        total = torch.zeros((), device=self.device)
        for name, items in sides.items():
            start = sum(len(chunk.sides[name].ids) for chunk in before)
            rows_here = slice(start, start + len(items.ids))
            for part, share in zip(items.side, self.sides[name], strict=True):
                if part.requires_grad and share is not None:
                    total = total + (part * share[rows_here]).sum()
        return total
