"""What DeepSpeed moves between the ranks, counted where all of it passes: at its communication backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from training.engine.distributed import Group

# collective: the argument that holds all that is gathered or reduced, its position, and how often it goes around
_MOVES = {
    "all_reduce": ("tensor", 0, 2),
    "all_reduce_coalesced": ("tensors", 0, 2),
    "all_gather": ("tensor_list", 0, 1),
    "all_gather_into_tensor": ("output_tensor", 0, 1),
    "all_gather_coalesced": ("output_tensors", 0, 1),
    "reduce_scatter": ("input_list", 1, 1),
    "reduce_scatter_tensor": ("input_tensor", 1, 1),
    "reduce": ("tensor", 0, 1),
    "broadcast": ("tensor", 0, 1),
}


class Counted:
    """A communication backend of DeepSpeed that adds what it brings to this rank to ``group.engine_bytes_received``.

    Counted is what a ring of W ranks moves: (W - 1) / W of the tensor for a gather or a reduction, twice that for an
    all-reduce.
    """

    def __init__(self, backend: Any, group: Group) -> None:
        self.backend, self._group = backend, group

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.backend, name)
        if name not in _MOVES:
            return found
        argument, position, rounds = _MOVES[name]
        group = self._group

        def collective(*args: Any, **kwargs: Any) -> Any:
            size = _size(kwargs[argument] if argument in kwargs else args[position])
            group.engine_bytes_received += rounds * size * (group.size - 1) // group.size
            return found(*args, **kwargs)

        setattr(self, name, collective)  # found without coming here the next time
        return collective


def _size(tensors: Tensor | Sequence[Tensor]) -> int:
    """Bytes."""
    if isinstance(tensors, Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(map(_size, tensors))
