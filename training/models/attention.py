"""Attention whose dropout the engine can make a function of each sample, unlike that of `torch.nn.MultiheadAttention`.

(`training.engine.dropout.SampleDropout` sees calls of ``F.scaled_dot_product_attention``, and torch's module makes
them out of its sight.)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        width: the width of queries and of the result.
        heads: they divide the width.
        dropout: the dropout of the attention's weights, in training.
        source_width: the width of keys and values; None: ``width``.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, source_width: int | None = None) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width or width, width)
        self.value = nn.Linear(source_width or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """``[b, n, width]`` from ``queries [b, n, width]`` and ``source [b, m, source_width]``.

        Args:
            queries, source: what attends, and what it attends to.
            mask: ``[b, m]`` bool, False if the source is padding; None: there is none.
            causal: whether a query attends to no later place of the source.
        """
        q, k, v = (
            self._heads(layer(x)) for layer, x in ((self.query, queries), (self.key, source), (self.value, source))
        )
        allowed = None if mask is None else mask[:, None, None, :]
        rate = self.rate if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, allowed, rate, is_causal=causal)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderBlock(nn.Module):
    """A layer of a transformer decoder, with normalisation before each part.

    Args:
        width, heads, dropout: settings of the attention.
        source_width: the width of what the block attends to besides itself; None: ``width``.
    """

    def __init__(self, width: int, heads: int, dropout: float, source_width: int | None = None) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads, dropout), Attention(width, heads, dropout, source_width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """``x [b, n, width]`` attends to what is before it, and to ``source [b, m, d]`` with ``mask [b, m]`` bool."""
        own, cross, last = self.norms
        normed = own(x)
        x = x + self.dropout(self.own(normed, normed, causal=True))
        x = x + self.dropout(self.cross(cross(x), source, mask))
        out: Tensor = x + self.dropout(self.layers(last(x)))
        return out
