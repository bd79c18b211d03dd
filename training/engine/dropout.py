"""Dropout that belongs to a sample, as its crop, masks and patchout do.

Torch draws dropout from one stream a process, so a batch that is cut otherwise, over ranks or into the chunks of
a cached step, would drop other numbers.  Here what is dropped is a hash of the sample's seed, of the place in the
model and of the element's coordinates: any cut, any padding and any repetition drop the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from training.models.encoders.randomness import splitmix64

LANES = 4  # 16-bit numbers in a hash: a rate is met to 1 / 65536
LEVELS = 1 << 16
STRIDE = 1_000_003  # between an element's coordinates: more than any of them
_active: list[SampleDropout] = []


class SampleDropout(TorchFunctionMode):
    """While it is active, ``F.dropout`` and attention draw from the samples' seeds.

    A tensor's rows must be the samples in their order, each once or equally often (heads or windows folded into
    the rows).  A tensor with any other number of rows belongs to no sample; torch draws for it.

    Args:
        seeds: ``[b]`` int64, one a sample.
        site: how many dropouts of the model came before.
    """

    def __init__(self, seeds: Tensor, site: int = 0) -> None:
        super().__init__()
        self.seeds, self.site = seeds, site

    def __enter__(self) -> SampleDropout:
        _active.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _active.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention and _rate(args, kwargs):
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        self.site += 1
        if not len(self.seeds) or len(input) % len(self.seeds):
            return F.dropout(input, p, True, inplace)
        dropped = round(p * LEVELS)
        if dropped == LEVELS:
            return input * 0
        lost = _hash(self.seeds, self.site, input.shape) < dropped - LEVELS // 2
        scale = LEVELS / (LEVELS - dropped)
        return (input.mul_(scale) if inplace else input * scale).masked_fill_(lost, 0)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attention written out, so that its weights can be dropped: ``[b, h, n, d]`` as in torch."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        logits = query @ key.mT * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = logits.new_ones(logits.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, torch.finfo(logits.dtype).min)
        elif attn_mask is not None:
            logits = logits + attn_mask
        weights = self._dropout(logits.softmax(-1), dropout_p)
        return weights.to(value.dtype) @ value


def draws_by_sample() -> bool:
    """Whether a `SampleDropout` is active, which needs the samples as the rows of tensors."""
    return bool(_active)


@torch.library.custom_op("earshot::dropout_hash", mutates_args=())
def _hash(seeds: Tensor, site: int, shape: Sequence[int]) -> Tensor:
    """Uniform int16 of a tensor's shape; an element's depends on its coordinates, not on the tensor's sizes.

    An operator of its own, because torch.compile would carry the 64-bit products beyond 64 bits.
    """
    *middle, last = shape[1:] or (1,)
    counter, stride = torch.arange(-(-last // LANES), device=seeds.device), STRIDE
    for size in reversed(middle):
        places = torch.arange(size, device=seeds.device) * stride
        counter = places.view(-1, *[1] * counter.dim()) + counter
        stride = stride * STRIDE % (1 << 62)
    rows = splitmix64(seeds, seeds.new_tensor(site))
    turns = torch.arange(shape[0] // len(rows), device=seeds.device)
    rows = splitmix64(rows[:, None], turns).view(-1, *[1] * counter.dim())
    return splitmix64(rows, counter).view(torch.int16)[..., :last].reshape(shape).contiguous()


@_hash.register_fake
def _(seeds: Tensor, site: int, shape: Sequence[int]) -> Tensor:
    return seeds.new_empty(shape, dtype=torch.int16)


def replayed(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` such that every call of it, also later and elsewhere, drops what a call here would drop."""
    if not _active:
        return function
    outside = _active[-1]
    seeds, site = outside.seeds, outside.site

    def call(*inputs: Any, **options: Any) -> Any:
        with SampleDropout(seeds, site) as inside:
            result = function(*inputs, **options)
        outside.site = max(outside.site, inside.site)
        return result

    return call


def _rate(args: Sequence[Any], kwargs: dict[str, Any]) -> float:
    return float(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))
