"""Token-level attention: cross-attention from a caption's tokens to a clip's vectors, for all pairs at once.

Calvet and Toledano 2025, eqs. 1-7.

For every text and every audio the paper computes ``H = W_o MultiHead(W_q T, W_k A, W_v A)`` and the mean over
tokens of ``cos(T_i, H_i)``.  Written out, that is two d x d products for every token of every pair.  The same
number comes from far smaller ones, exactly.  Let ``U = W_o W^O``, ``c`` the biases pushed through, and
``O_i = sum over heads and m of a_ihm v_hm`` the attended values, so that ``H_i = U O_i + c``.  Then

    T_i . H_i = sum over h, m of a_ihm ((U^T T_i)_h . v_hm) + T_i . c
    |H_i|^2   = sum over h, m, h', m' of a_ihm a_ih'm' G_hm,h'm' + 2 sum over h, m of a_ihm g_hm + |c|^2

where ``G_hm,h'm' = (U_h v_hm) . (U_h' v_h'm')`` and ``g_hm = (U_h v_hm) . c`` belong to one audio alone.  With
three segments and eight heads a pair costs products of 24 numbers instead of 1024.  With patches, G would be
larger than d x d, and ``|H_i|^2 = O_i^T (U^T U) O_i + 2 O_i . (U^T c) + |c|^2`` is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_multiple
from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import SHORTEST_SQUARED, Head, Side, full_precision


@dataclass(frozen=True)
class Settings:
    """Settings of token-level attention; defaults are those of Calvet and Toledano 2025 section 3.3.

    Attributes:
        name: the key of the registry.
        dim: width of queries, keys and values.
        heads: attention heads.
        audio: attend to "segments" (one vector per 10 s for PaSST, as published) or to "patches".
        compare: what eq. 7 compares H with: the "text" T, which needs its width to be `dim`; the "query"
            W_q T; or "auto": T where the widths are equal, else W_q T.
        bias: biases in all projections, as torch.nn.MultiheadAttention has them; eqs. 1-6 show none.
    """

    name: str = "token-attention"
    dim: int = 1024
    heads: int = 8
    audio: Literal["segments", "patches"] = "segments"
    compare: Literal["auto", "text", "query"] = "auto"
    bias: bool = True

    def __post_init__(self) -> None:
        check_multiple(self, "dim")


class OutputMap(nn.Module):
    """The two linear layers behind the heads, W^O (eq. 4) and W_o (eq. 6), as one affine map."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        inner, outer = nn.Linear(dim, dim, bias), nn.Linear(dim, dim, bias)
        self.inner_weight, self.outer_weight = inner.weight, outer.weight
        self.inner_bias, self.outer_bias = inner.bias, outer.bias

    def forward(self) -> tuple[Tensor, Tensor]:
        """``U [d, d]`` and ``c [d]`` of ``H = U O + c``, in float32 at least."""
        wide = accumulation_dtype(self.outer_weight.dtype)
        outer = self.outer_weight.to(wide)
        weight = outer @ self.inner_weight.to(wide)
        if self.inner_bias is None:
            return weight, weight.new_zeros(len(weight))
        return weight, outer @ self.inner_bias.to(wide) + self.outer_bias.to(wide)


class TokenAttention(Head):
    """Every token of a caption attends to a clip (eqs. 1-7)."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        dim, bias = settings.dim, settings.bias
        if settings.compare == "text" and text_dim != dim:
            raise InputError(
                "eq. 7 can compare H with T only where they have the same width",
                value=settings.compare,
                remedy=f"set dim to the text encoder's {text_dim}, or compare to query",
            )
        self.heads = settings.heads
        self.uses_patches = settings.audio == "patches"
        self.compares_text = settings.compare != "query" and text_dim == dim
        self.query, self.query_in = nn.Linear(text_dim, dim, bias), nn.Linear(dim, dim, bias)
        self.key, self.key_in = nn.Linear(audio_dim, dim, bias), nn.Linear(dim, dim, bias)
        self.value, self.value_in = nn.Linear(audio_dim, dim, bias), nn.Linear(dim, dim, bias)
        self.output = OutputMap(dim, bias)

    def queries(self, text: EncodedText) -> tuple[Tensor, Tensor]:
        """The embeddings T that attend, ``[b, N, d_t]``, and their mask."""
        return self.words(text)

    def text_side(self, text: EncodedText) -> Side:
        """Queries ``[b, N, d]``, weighted ``U^T T_i / |T_i| [b, N, d]`` and ``T_i . c / |T_i| [b, N]``.

        The weights are those of eq. 7's mean over real tokens, zero on padding.
        """
        tokens, mask = self.queries(text)
        projected = self.query(tokens)
        compared = tokens if self.compares_text else projected
        unit = F.normalize(compared.to(accumulation_dtype(compared.dtype)), dim=-1)
        weighted = unit * (mask.to(unit) / mask.sum(1, keepdim=True).clamp(min=1))[..., None]
        query = self.query_in(projected) / math.sqrt(projected.shape[-1] // self.heads)
        with full_precision(tokens):
            matrix, offset = self.output()
            return query, weighted @ matrix, weighted @ offset

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Keys and values ``[b, M, d]``, mask ``[b, M]``; for segments also G, g and |c|^2."""
        vectors, mask = self.vectors(audio)
        keys, values = self.key_in(self.key(vectors)), self.value_in(self.value(vectors))
        if self.uses_patches:
            return keys, values, mask
        with full_precision(vectors):
            matrix, offset = self.output()
            by_head = values.to(matrix.dtype).unflatten(-1, (self.heads, -1))
            basis = torch.einsum("bmhe,dhe->bmhd", by_head, matrix.unflatten(1, (self.heads, -1)))
            gram = torch.einsum("bmhd,bnkd->bmhnk", basis, basis)
            return keys, values, mask, gram, basis @ offset, (offset @ offset).expand(len(keys), 1)

    def shared(self) -> Side:
        """For patches: ``U^T U [d, d]``, ``U^T c [d]`` and ``|c|^2``."""
        if not self.uses_patches:
            return ()
        matrix, offset = self.output()
        return matrix.t() @ matrix, offset @ matrix, (offset @ offset).view(1)

    def pair_elements(self, text: Side, audio: Side) -> int:
        tokens, vectors = max(text[0].shape[1], 1), max(audio[0].shape[1], 1)
        attended = text[0].shape[2] if self.uses_patches else 2 * self.heads * vectors
        return tokens * (3 * self.heads * vectors + 2 * attended)

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        query, compared, offset = text
        keys, values, mask = audio[:3]
        logits = self._products(query, keys).masked_fill(~mask.t(), torch.finfo(query.dtype).min)
        weights = logits.softmax(2)
        if self.uses_patches:
            outputs = self._outputs(weights, values)
            dot = (outputs * compared.flatten(0, 1)).sum(-1)
            squared = _quadratic(outputs, *shared)
        else:
            dot = (weights * self._products(compared, values)).sum((0, 2)).t()
            gram, linear, constant = audio[3:]
            flat = weights.permute(3, 1, 2, 0).flatten(2)
            squared = _quadratic(flat, gram.flatten(3).flatten(1, 2), linear.flatten(1)[:, None], constant)
        cosines = (dot + offset.flatten()) * squared.clamp(min=SHORTEST_SQUARED).rsqrt()
        return cosines.unflatten(1, query.shape[:2]).sum(2).t()

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """Scores with attention spread evenly over the clip; exact where it has one vector.

        Then ``H_i`` is ``H = U v + c`` with v the mean of the clip's values for every token i, and eq. 7 is the dot
        product of ``mean over i of T_i / |T_i|`` with ``H / |H|``.
        """
        _, compared, offset = text
        values, mask = audio[1:3]
        weights = mask.to(values.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
        mean = torch.einsum("cm,cmd->cd", weights, values)
        if self.uses_patches:
            squared = _quadratic(mean[:, None], *shared)[:, 0]
        else:
            gram, linear, constant = audio[3:]
            flat = weights[..., None].expand(-1, -1, self.heads).flatten(1)[:, None]
            squared = _quadratic(flat, gram.flatten(3).flatten(1, 2), linear.flatten(1)[:, None], constant)[:, 0]
        sounds = (
            torch.cat((mean, torch.ones_like(mean[:, :1])), 1) * squared.clamp(min=SHORTEST_SQUARED).rsqrt()[:, None]
        )
        return torch.cat((compared.sum(1), offset.sum(1, keepdim=True)), 1), sounds

    def _products(self, left: Tensor, right: Tensor) -> Tensor:
        """Dot products per head: ``[r, N, d]`` and ``[c, M, d]`` to ``[heads, r * N, M, c]``."""
        rows = left.flatten(0, 1).unflatten(1, (self.heads, -1)).transpose(0, 1)
        columns = right.unflatten(2, (self.heads, -1)).permute(2, 3, 1, 0).flatten(2)
        return (rows @ columns).unflatten(2, (right.shape[1], right.shape[0]))

    def _outputs(self, weights: Tensor, values: Tensor) -> Tensor:
        """The heads' concatenated outputs O: ``[heads, r * N, M, c]`` and ``[c, M, d]`` to ``[c, r * N, d]``."""
        by_head = values.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return (weights.permute(3, 0, 1, 2) @ by_head).transpose(1, 2).flatten(2)


def _quadratic(vectors: Tensor, square: Tensor, linear: Tensor, constant: Tensor) -> Tensor:
    """``x^T S x + 2 x . l + k`` for vectors ``[c, n, k]``: ``[c, n]``."""
    return ((vectors @ square + 2 * linear) * vectors).sum(-1) + constant


def build(settings: Settings, audio_dim: int, text_dim: int) -> TokenAttention:
    """The head that ``settings`` describes, for encoders of these widths."""
    return TokenAttention(settings, audio_dim, text_dim)
