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
larger than d x d, and ``|H_i|^2 = O_i^T (U^T U) O_i + 2 O_i . (U^T c) + |c|^2`` is used.  Nothing
is computed for padding.

Tokens are many, so that d x d products for each of them are most of the work where clips are few.  There the layers are
moved to the clips: tokens stay as they are, each head's keys and values are taken to where tokens live, and for them

    W_in,h (W_q T_i + b_q) . k_hm = T_i . (W_q^T W_in,h^T k_hm) + (W_in,h b_q) . k_hm      (b_in likewise)
    H_i = sum over h, m of a_ihm B_hm    with    B_hm = U_h v_hm + c / heads,    as each head's a_ihm sum to 1

so that a pair costs products of d numbers for each head and segment instead of d / heads, and a token costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import check_multiple
from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import SHORTEST, SHORTEST_SQUARED, Head, Side, full_precision

FEW = 3 / 8  # clips are few where clips times heads are at most this share of the width


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
    """The two linear layers behind the heads, W^O (eq. 4) and W_o (eq. 6), as one affine map ``H = U O + c``."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        inner, outer = nn.Linear(dim, dim, bias), nn.Linear(dim, dim, bias)
        self.inner_weight, self.outer_weight = inner.weight, outer.weight
        self.inner_bias, self.outer_bias = inner.bias, outer.bias

    def forward(self, words: Tensor | None = None, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``U [d, d]`` and ``c [d]``, or their products with vectors, in float32 at least.

        Fewer vectors than d go through one layer after the other: the product of both layers, U, has d rows itself.

        Args:
            words: ``[n, d]``; given, the products are ``words U [n, d]`` and ``words c [n]``.
            values: ``[n, heads, d / heads]``; given, they are ``U_h v_h [n, heads, d]`` and c itself.
        """
        wide = accumulation_dtype(self.outer_weight.dtype)
        own = [self.inner_weight, self.outer_weight]
        own += [] if self.inner_bias is None else [self.inner_bias, self.outer_bias]
        inner, outer, *biases = (each.to(wide) for each in _Together.apply(*own))
        inner_bias, outer_bias = biases or [outer.new_zeros(len(outer))] * 2
        if words is not None and len(words) < len(outer):
            halfway = words @ outer
            return halfway @ inner, halfway @ inner_bias + words @ outer_bias
        if values is not None and values.shape[0] * values.shape[1] < len(outer):
            halfway = _by_head(values.to(wide), inner)
            rows = torch.cat((halfway.flatten(0, 1), inner_bias[None])) @ outer.t()
            return rows[:-1].view_as(halfway), rows[-1] + outer_bias
        matrix, offset = outer @ inner, outer @ inner_bias + outer_bias
        if words is not None:
            return words @ matrix, words @ offset
        return matrix if values is None else _by_head(values.to(wide), matrix), offset


class _Together(torch.autograd.Function):
    """Returns parameters unchanged, and makes all of their gradients ready at the same moment.

    DeepSpeed's ZeRO 2 sums gradients over ranks in the order in which they become ready.  That order must not depend on
    which way a rank takes through `OutputMap`, for ranks have different numbers of vectors.
    """

    @staticmethod
    def forward(context: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(parameter.view_as(parameter) for parameter in parameters)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


def _by_head(values: Tensor, matrix: Tensor) -> Tensor:
    """Each head's part of a matrix ``[d, d]`` times its values ``[n, heads, d / heads]``: ``[n, heads, d]``."""
    by_head = matrix.unflatten(1, values.shape[1:]).transpose(0, 1)
    return (by_head @ values.permute(1, 2, 0)).permute(2, 0, 1)


class BothWays(nn.Linear):
    """A linear layer ``y = W x + b`` that can be moved to the other factor of dot products with its outputs."""

    def forward(self, vectors: Tensor, moved: bool = False) -> Any:
        """``y``, or what is needed for ``z . y = (W^T z) . x + z . b``.

        Args:
            vectors: x ``[..., inputs]``; with ``moved``, z ``[groups, n, outputs / groups]``, where the outputs are cut
                into groups, and each vector is multiplied with those of its group.
            moved: give ``W^T z [groups, n, inputs]`` and ``z . b [groups, n]``.
        """
        if not moved:
            return super().forward(vectors)
        groups = (len(vectors), vectors.shape[2])
        offset = vectors.new_zeros(vectors.shape[:2])
        if self.bias is not None:
            offset = (vectors @ self.bias.unflatten(0, groups)[..., None])[..., 0]
        return vectors @ self.weight.unflatten(0, groups), offset


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
        self.heads, self.dim = settings.heads, dim
        self.uses_patches = settings.audio == "patches"
        self.compares_text = settings.compare != "query" and text_dim == dim
        self.query, self.query_in = BothWays(text_dim, dim, bias), BothWays(dim, dim, bias)
        self.key, self.key_in = nn.Linear(audio_dim, dim, bias), nn.Linear(dim, dim, bias)
        self.value, self.value_in = nn.Linear(audio_dim, dim, bias), nn.Linear(dim, dim, bias)
        self.output = OutputMap(dim, bias)

    @property
    def moves_layers(self) -> bool:
        """Whether the layers of tokens are moved to the clips, which costs less where these are few."""
        few = 0 < self.global_batch * self.heads <= self.dim * FEW
        return few and self.training and not self.uses_patches

    def queries(self, text: EncodedText) -> tuple[Tensor, Tensor]:
        """The embeddings T that attend, ``[b, N, d_t]``, and their mask."""
        return self.words(text)

    def text_side(self, text: EncodedText) -> Side:
        """Queries ``[b, N, d]``, ``U^T T_i [b, N, d]``, ``T_i . c [b, N]`` and what token i weighs ``[b, N]``.

        A token weighs 1 / |T_i| divided by the number of real tokens (eq. 7's mean of cosines), and padding nothing.
        Tokens of infinite length weigh NaN, so that the scores of a model that has diverged are NaN.  Where the layers
        are moved to the clips: T_i ``[b, N, d]`` and what it weighs.
        """
        tokens, mask = self.queries(text)
        words, places = _real(tokens, mask)
        moves = self.moves_layers
        projected = words if moves and self.compares_text else self.query(words)
        compared = words if self.compares_text else projected
        query = None if moves else self.query_in(projected)
        with full_precision(tokens):
            compared = compared.to(accumulation_dtype(compared.dtype))
            attended = (compared,) if moves else (query, *self.output(words=compared))
            shares, _ = _real(mask.to(compared) / mask.sum(1, keepdim=True).clamp(min=1), mask)
            length = compared.norm(dim=-1).clamp(min=SHORTEST)
            weight = shares / length.masked_fill(length.isinf(), math.nan)
        return tuple(_padded(each, places, mask) for each in (*attended, weight))

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Keys and values ``[b, M, d]``, mask ``[b, M]``; for segments also G, g and |c|^2.

        Where layers are moved to the clips: keys and B ``[b, M, heads, d]``, mask, the dot products of B, and what
        keys add to logits ``[b, M, heads]``.
        """
        vectors, mask = self.vectors(audio)
        sounds, places = _real(vectors, mask)
        real_values = self.value_in(self.value(sounds))
        real_keys = self.key_in(self.key(sounds))
        moves = self.moves_layers
        if moves:
            keys, added = (_padded(each, places, mask) for each in self._moved(real_keys))
        else:
            keys, values = (_padded(each, places, mask) for each in (real_keys, real_values))
        if self.uses_patches:
            return keys, values, mask
        with full_precision(vectors):
            products, offset = self.output(values=real_values.unflatten(-1, (self.heads, -1)))
            basis = _padded(products + offset / self.heads if moves else products, places, mask)
            gram = torch.einsum("bmhd,bnkd->bmhnk", basis, basis)
            if moves:
                return keys, basis, mask, gram, added
            return keys, values, mask, gram, basis @ offset, (offset @ offset).expand(len(keys), 1)

    def _moved(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``[n, d]`` as tokens meet them ``[n, heads, d]``, and what this lacks ``[n, heads]``."""
        by_head = keys.unflatten(1, (self.heads, -1)).transpose(0, 1)
        moved, added = self.query_in(by_head, moved=True)
        if self.compares_text:  # else tokens have passed the first layer, whose outputs are compared
            further, more = self.query(moved.flatten(0, 1)[None], moved=True)
            moved, added = further.view_as(moved), added + more.view_as(added)
        return moved.transpose(0, 1), added.t()

    def shared(self) -> Side:
        """For patches: ``U^T U [d, d]``, ``U^T c [d]`` and ``|c|^2``."""
        if not self.uses_patches:
            return ()
        matrix, offset = self.output()
        return matrix.t() @ matrix, offset @ matrix, (offset @ offset).view(1)

    def pair_elements(self, text: Side, audio: Side) -> int:
        tokens = max(int(text[-1].count_nonzero()) // max(len(text[-1]), 1), 1)
        weights = tokens * self.heads * max(audio[0].shape[1], 1)
        if self.uses_patches:
            return 3 * weights + 2 * tokens * text[0].shape[2]
        # Seven arrays of weights are held at once.  On a CPU only two count, because a tile that its caches do not hold
        # costs less than reading rows and columns more often, which are far wider.  With moved layers half of one
        # counts: pairs are few, but to compute the scores of several tiles again costs much.
        if len(text) == 2:
            return max(weights // 2, 1)
        return (7 if text[0].is_cuda else 2) * weights

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        real = text[-1].flatten().nonzero()[:, 0]  # tokens that weigh something
        if len(text) == 2:
            return _summed(self._moved_cosines(text, audio, real), real, text[-1].shape)
        query, compared, offset, weight = (tensor.flatten(0, 1).index_select(0, real) for tensor in text)
        keys, values, mask = audio[:3]
        absent = keys.new_zeros(mask.shape).masked_fill_(~mask, torch.finfo(keys.dtype).min).t()
        shrink = 1 / math.sqrt(query.shape[1] // self.heads)
        logits = torch.baddbmm(absent.flatten(), *self._by_heads(query, keys), alpha=shrink)
        weights = logits.unflatten(2, absent.shape).softmax(2)
        if self.uses_patches:
            outputs = self._outputs(weights, values)
            dot = (outputs * compared).sum(-1)
            squared = _quadratic(outputs, *shared)
        else:
            products = torch.bmm(*self._by_heads(compared, values))
            dot = (weights * products.view_as(weights)).sum((0, 2)).t()
            gram, linear, constant = audio[3:]
            flat = weights.permute(3, 1, 2, 0).flatten(2)
            squared = _quadratic(flat, gram.flatten(3).flatten(1, 2), linear.flatten(1)[:, None], constant)
        cosines = (dot + offset) * weight * squared.clamp(min=SHORTEST_SQUARED).rsqrt()
        return _summed(cosines.t(), real, text[-1].shape)

    def _moved_cosines(self, text: Side, audio: Side, real: Tensor) -> Tensor:
        """Weighted cosines of the ``real`` tokens with what they hear in each clip, ``[n, c]``: with moved layers."""
        tokens, weight = (tensor.flatten(0, 1).index_select(0, real) for tensor in text)
        mask, gram = audio[2:4]
        clips, segments = mask.shape
        heard = mask.flatten().nonzero()[:, 0]
        keys, basis, added = (audio[i].flatten(0, 1).index_select(0, heard).flatten(0, 1) for i in (0, 1, 4))
        shrink = 1 / math.sqrt(self.dim // self.heads)
        found = torch.addmm(added, tokens, keys.t(), beta=shrink, alpha=shrink).unflatten(1, (-1, self.heads))
        logits = found.new_full((len(tokens), clips * segments, self.heads), torch.finfo(found.dtype).min)
        weights = logits.index_copy_(1, heard, found).unflatten(1, mask.shape).softmax(2)
        products = (tokens @ basis.t()).view_as(found) * weights.flatten(1, 2).index_select(1, heard)
        dot = products.new_zeros(len(tokens), clips).index_add_(1, heard // segments, products.sum(2))
        by_clip = weights.flatten(2).transpose(0, 1)
        squared = (torch.bmm(by_clip, gram.flatten(3).flatten(1, 2)) * by_clip).sum(-1).t()
        return dot * weight[:, None] * squared.clamp(min=SHORTEST_SQUARED).rsqrt()

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """Scores with attention spread evenly over the clip; exact where it has one vector.

        Then ``H_i`` is ``H = U v + c`` with v the mean of the clip's values for every token i, and eq. 7 is the dot
        product of ``mean over i of T_i / |T_i|`` with ``H / |H|``.
        """
        compared, offset = text[1] * text[3][..., None], text[2] * text[3]
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

    def _by_heads(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Factors per head, e = d / heads: of ``[n, d]`` ``[heads, n, e]``, of ``[c, M, d]`` ``[heads, e, M * c]``."""
        rows = left.unflatten(1, (self.heads, -1)).transpose(0, 1)
        return rows, right.unflatten(2, (self.heads, -1)).permute(2, 3, 1, 0).flatten(2)

    def _outputs(self, weights: Tensor, values: Tensor) -> Tensor:
        """The heads' concatenated outputs O: ``[heads, n, M, c]`` and ``[c, M, d]`` to ``[c, n, d]``."""
        by_head = values.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return (weights.permute(3, 0, 1, 2) @ by_head).transpose(1, 2).flatten(2)


def _real(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of ``[b, N, ...]`` that are not padding, ``[n, ...]``, and their places in ``[b * N, ...]``, ``[n]``."""
    places = mask.flatten().nonzero()[:, 0]
    return vectors.flatten(0, 1).index_select(0, places), places


def _padded(vectors: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """The reverse of `_real`, with zeros on padding: ``[b, N, ...]``."""
    flat = vectors.new_zeros(mask.numel(), *vectors.shape[1:])
    return flat.index_copy_(0, places, vectors).unflatten(0, mask.shape)


def _summed(cosines: Tensor, real: Tensor, shape: torch.Size) -> Tensor:
    """Sums of the weighted cosines of each caption's real tokens ``[n, c]``: ``[b, c]``."""
    placed = cosines.new_zeros(shape.numel(), cosines.shape[1]).index_copy_(0, real, cosines)
    return placed.unflatten(0, shape).sum(1)


def _quadratic(vectors: Tensor, square: Tensor, linear: Tensor, constant: Tensor) -> Tensor:
    """``x^T S x + 2 x . l + k`` for vectors ``[c, n, k]``: ``[c, n]``."""
    square = square.expand(len(vectors), -1, -1)
    return (torch.baddbmm(linear, vectors, square, beta=2) * vectors).sum(-1) + constant


def build(settings: Settings, audio_dim: int, text_dim: int) -> TokenAttention:
    """The head that ``settings`` describes, for encoders of these widths."""
    return TokenAttention(settings, audio_dim, text_dim)
