"""Every collective that Earshot calls, with names and sizes: nothing else uses torch.distributed.

A `Group` is the set of processes that share one global batch.  `LocalGroup` is one process alone;
`TorchGroup` is a process group of torch.distributed (gloo or nccl).  Code above this module reads the same
for both.
"""

from __future__ import annotations

import datetime
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharding.common.errors import InputError

TIMEOUT_S = 1800.0  # after which a collective that not every rank has joined fails


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums over `dtype` are taken: float32 for bfloat16 and float16, else itself."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


class Group(ABC):
    """The processes that share a global batch.

    Attributes:
        rank: this process, ``0 .. size - 1``.
        size: number of processes.
        bytes_received: bytes that these collectives brought to this rank since the start: what the loss and the
            metrics move.
    """

    rank: int = 0
    size: int = 1

    def __init__(self) -> None:
        self.bytes_received = 0

    @abstractmethod
    def sum(self, tensor: Tensor, name: str = "sum") -> Tensor:
        """The elementwise sum over ranks (a new tensor, no gradient); shapes agree on all ranks."""

    @abstractmethod
    def max(self, tensor: Tensor, name: str = "max") -> Tensor:
        """The elementwise maximum over ranks (a new tensor, no gradient); shapes agree on all ranks."""

    @abstractmethod
    def gather_objects(self, value: Any, name: str = "objects") -> list[Any]:
        """Every rank's picklable value, in rank order.  For small facts, not for tensors."""

    def barrier(self, name: str = "barrier") -> None:
        """Return when every rank has come here."""
        self.sum(torch.zeros(1), name)

    def logsumexp(self, tensor: Tensor, name: str = "logsumexp") -> Tensor:
        """``log sum_ranks exp(tensor)``, elementwise; -inf where every rank has -inf."""
        if self.size == 1:
            return tensor
        highest = self.max(tensor, name)
        finite = highest.clamp(min=torch.finfo(tensor.dtype).min)
        return finite + self.sum((tensor - finite).exp(), name).log()

    def gather_rows(self, tensor: Tensor, name: str = "rows") -> Tensor:
        """All ranks' rows in rank order, ``[b_rank, ...] -> [sum of b, ...]``, with gradient.

        See `gather_many`, of which this is the case of one tensor.
        """
        return self.gather_many((tensor,), name)[0]

    @abstractmethod
    def gather_many(
        self, tensors: Sequence[Tensor], name: str = "rows", layouts: Layouts | None = None
    ) -> tuple[Tensor, ...]:
        """All ranks' rows of several tensors at once, in rank order and with gradient.

        Ranks may hold different numbers of rows, none included.  Where the other dimensions differ
        (captions padded to different lengths), they are padded with zeros at the end to the longest;
        masks therefore say False there.  The backward pass sums every rank's cotangents at the owner of
        the row (a reduce-scatter).  bfloat16 and float16 travel as they are and arrive as float32, so that
        those sums are taken in float32.

        Args:
            tensors: each ``[b, ...]``; the same number, types and dimensions on every rank.
            name: what is gathered, for error messages.
            layouts: what `describe` returned for the same tensors, to save its collective.

        Raises:
            InputError: the ranks disagree about the number, types or dimensions of the tensors.
        """

    def describe(self, tensors: Sequence[Tensor], name: str = "rows") -> Layouts:
        """Layouts of these tensors on all ranks, by one small collective."""
        mine = [(tuple(t.shape), t.dtype, t.requires_grad) for t in tensors]
        return Layouts(name, self.gather_objects(mine, f"layout of {name}"))


class Layouts:
    """The shapes, types and need of gradient of some tensors on every rank.

    Attributes:
        rows: rows on each rank.
        trailing: for each tensor, the longest of every dimension after the first.
        needs_gradient: for each tensor, whether any rank wants its gradient.
    """

    def __init__(self, name: str, ranks: list[list[tuple[tuple[int, ...], torch.dtype, bool]]]) -> None:
        self.name, self.ranks = name, ranks
        for rank, other in enumerate(ranks):
            if [(len(s), d) for s, d, _ in other] != [(len(s), d) for s, d, _ in ranks[0]]:
                raise InputError(
                    f"ranks hold different things as {name!r}: rank 0 has {ranks[0]}, rank {rank} has {other}",
                    remedy="every rank must run the same recipe and the same version",
                )
        self.rows = [other[0][0][0] if other else 0 for other in ranks]
        columns = list(zip(*ranks, strict=True))
        self.trailing = [
            tuple(max(sizes) for sizes in zip(*(shape[1:] for shape, _, _ in column), strict=True))
            for column in columns
        ]
        self.needs_gradient = [any(wants for _, _, wants in column) for column in columns]
        self.dtypes = [column[0][1] for column in columns]

    def split(self, first: int) -> tuple[Layouts, Layouts]:
        """The layouts of the first tensors, and of the rest."""
        return (
            Layouts(self.name, [rank[:first] for rank in self.ranks]),
            Layouts(self.name, [rank[first:] for rank in self.ranks]),
        )

    def total_bytes(self) -> int:
        """Bytes of all ranks' rows together, as a gather moves them: the same number on every rank."""
        return sum(self.rows) * sum(
            math.prod(trailing) * dtype.itemsize for trailing, dtype in zip(self.trailing, self.dtypes, strict=True)
        )


def with_gradient(tensors: Sequence[Tensor], layouts: Layouts) -> tuple[Tensor, ...]:
    """The same tensors, each in need of gradient if it is so on any rank.

    A rank without rows may hold constants; it has to take part in the collectives of the backward pass all
    the same.
    """
    return tuple(
        tensor.detach().requires_grad_() if wanted and not tensor.requires_grad else tensor
        for tensor, wanted in zip(tensors, layouts.needs_gradient, strict=True)
    )


def _arrived(tensor: Tensor) -> Tensor:
    """The tensor in the type in which it arrives: half-precision types become float32."""
    return tensor.to(accumulation_dtype(tensor.dtype)) if tensor.is_floating_point() else tensor


class LocalGroup(Group):
    """One process alone: every collective is the identity."""

    def sum(self, tensor: Tensor, name: str = "sum") -> Tensor:
        return tensor.detach().clone()

    def max(self, tensor: Tensor, name: str = "max") -> Tensor:
        return tensor.detach().clone()

    def gather_objects(self, value: Any, name: str = "objects") -> list[Any]:
        return [value]

    def gather_many(
        self, tensors: Sequence[Tensor], name: str = "rows", layouts: Layouts | None = None
    ) -> tuple[Tensor, ...]:
        return tuple(_arrived(tensor) for tensor in tensors)


class TorchGroup(Group):
    """The default process group of torch.distributed.

    A CPU tensor under nccl travels over the current CUDA device and comes back to the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rank, self.size, self.backend = dist.get_rank(), dist.get_world_size(), str(dist.get_backend())

    def _call(self, name: str, size: int, collective: Callable[[], Any], rounds: int = 1) -> Any:
        """Run a collective; if it fails, the error names it, its size and the rank."""
        try:
            result = collective()
        except RuntimeError as error:
            raise RuntimeError(
                f"collective {name!r} ({size / 1e6:.3f} MB) failed on rank {self.rank} of {self.size} over "
                f"{self.backend}: {error}\n  Another rank has ended, is stuck, or took another path; "
                "the first error in the ranks' logs is the cause."
            ) from error
        self.bytes_received += rounds * size * (self.size - 1) // self.size
        return result

    def _device(self, tensor: Tensor) -> torch.device:
        return torch.device("cuda") if self.backend == "nccl" and not tensor.is_cuda else tensor.device

    def _reduce(self, tensor: Tensor, operation: Any, name: str) -> Tensor:
        travelling = tensor.detach().to(self._device(tensor), copy=True).contiguous()
        size = travelling.numel() * travelling.element_size()
        self._call(name, size, lambda: dist.all_reduce(travelling, operation), rounds=2)
        return travelling.to(tensor.device)

    def sum(self, tensor: Tensor, name: str = "sum") -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.SUM, name)

    def max(self, tensor: Tensor, name: str = "max") -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.MAX, name)

    def gather_objects(self, value: Any, name: str = "objects") -> list[Any]:
        values: list[Any] = [None] * self.size
        self._call(name, 0, lambda: dist.all_gather_object(values, value))
        return values

    def gather_many(
        self, tensors: Sequence[Tensor], name: str = "rows", layouts: Layouts | None = None
    ) -> tuple[Tensor, ...]:
        layouts = layouts or self.describe(tensors, name)
        return tuple(_GatherRows.apply(self, layouts, name, *with_gradient(tensors, layouts)))

    def all_gather_padded(self, tensor: Tensor, layouts: Layouts, index: int, name: str) -> Tensor:
        """Rows of all ranks, ``[sum of b, *trailing]``, no gradient."""
        longest = max(layouts.rows)
        padded = tensor.new_zeros((longest, *layouts.trailing[index]))
        padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
        padded = padded.to(self._device(tensor))
        everything = padded.new_empty((self.size * longest, *padded.shape[1:]))
        size = everything.numel() * everything.element_size()
        self._call(name, size, lambda: dist.all_gather_into_tensor(everything, padded))
        if min(layouts.rows) < longest:
            blocks = everything.split(longest)
            everything = torch.cat([b[:n] for b, n in zip(blocks, layouts.rows, strict=True)])
        return everything.to(tensor.device)

    def reduce_scatter_rows(self, tensor: Tensor, layouts: Layouts, name: str) -> Tensor:
        """The sum over ranks of ``[sum of b, ...]``, of which each rank gets its own rows."""
        longest = max(layouts.rows)
        if min(layouts.rows) < longest:
            padded = tensor.new_zeros((self.size, longest, *tensor.shape[1:]))
            for rank, block in enumerate(tensor.split(layouts.rows)):
                padded[rank, : len(block)] = block
            tensor_by_rank = padded.flatten(0, 1)
        else:
            tensor_by_rank = tensor.contiguous()
        tensor_by_rank = tensor_by_rank.to(self._device(tensor))
        own = tensor_by_rank.new_empty((longest, *tensor.shape[1:]))
        size = tensor_by_rank.numel() * tensor_by_rank.element_size()
        self._call(name, size, lambda: dist.reduce_scatter_tensor(own, tensor_by_rank))
        return own[: layouts.rows[self.rank]].to(tensor.device)


class _GatherRows(torch.autograd.Function):
    """All-gather of rows whose backward pass is a reduce-scatter.

    Several tensors are one node, so that every rank calls the collectives of the backward pass in the same order.
    """

    @staticmethod
    def forward(ctx: Any, group: TorchGroup, layouts: Layouts, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.layouts, ctx.name = group, layouts, name
        ctx.local = [(tensor.shape, tensor.dtype) for tensor in tensors]
        gathered = tuple(
            _arrived(group.all_gather_padded(tensor, layouts, index, f"gather {name}[{index}]"))
            for index, tensor in enumerate(tensors)
        )
        ctx.mark_non_differentiable(*(t for t in gathered if not t.is_floating_point()))
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        gradients: list[Tensor | None] = []
        for index, (shape, dtype) in enumerate(ctx.local):
            if not ctx.needs_input_grad[3 + index]:
                gradients.append(None)
                continue
            name = f"gradient of {ctx.name}[{index}]"
            own = ctx.group.reduce_scatter_rows(cotangents[index], ctx.layouts, name)
            gradients.append(own[tuple(slice(0, n) for n in shape)].to(dtype))
        return (None, None, None, *gradients)


def connect(backend: str) -> Group:
    """The group this process belongs to, as its launcher describes it.

    torchrun, DeepSpeed's launcher and Ray Train set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or have
    made the default process group already; without either, the process is alone.

    Args:
        backend: "gloo" or "nccl".
    """
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return LocalGroup()
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=TIMEOUT_S))
    return TorchGroup()
