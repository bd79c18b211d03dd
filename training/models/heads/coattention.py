"""Co-attention between a caption's tokens and a clip's vectors, papers/002 (arXiv 2412.20914).

One module lets each modality attend to the other and refines both; modules are cascaded, and a pair's score is
the cosine of the two refined and averaged sequences.  The text that could be read gives no formula, so
everything it leaves open is a setting, and the rest is the usual reading (post-norm transformer layers):

    [self-attention]   X = LN(X + MHA(X, X, X))                    text and audio, each for itself
    co-attention       T', A' = LN(T + MHA(T, A, A)), LN(A + MHA(A, T, T))
    [feed-forward]     X = LN(X + W_2 relu(W_1 X))                 text and audio

"Iterating" is `shared_weights` with wiring "sequential", "stacking" the same with separate weights; the paper's
summary also calls stacking a "parallel refinement", which is wiring "parallel": every module sees the encoders'
outputs, and their results are averaged.

Both sides change with the partner, so nothing factors: every pair goes through the modules.  It is evaluated in
tiles with recomputation, at about ``modules * 12 (N + M) d^2`` multiplications a pair; or, as the cheaper choice, for
the pairs alone that look nearest without a partner (`training.objectives.pairs.candidates`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_multiple, check_positive
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import ListedHead, Side

ATTENTION = ("in_weight", "in_bias", "out_weight", "out_bias", "norm_weight", "norm_bias")
FEED_FORWARD = ("up_weight", "up_bias", "down_weight", "down_bias", "norm_weight", "norm_bias")


@dataclass(frozen=True)
class Settings:
    """Settings of co-attention; the paper's summary gives none of the sizes.

    Attributes:
        name: the key of the registry.
        dim: width of the shared space.
        heads: attention heads.
        modules: how many co-attention modules a pair goes through; 1 is the single module.
        wiring: modules one after the other ("sequential") or all on the encoders' outputs ("parallel").
        shared_weights: one module's weights used every time (iterating) or separate ones (stacking).
        self_attention: each modality attends to itself first in every module.
        feed_forward: a feed-forward layer of width 4 d ends every module.
        audio: attend to "segments" or to "patches".
        candidates: negatives that each caption and each clip meets in training: those that look nearest without a
            partner; 0: the whole global batch.
    """

    name: str = "co-attention"
    dim: int = 768
    heads: int = 8
    modules: int = 2
    wiring: Literal["sequential", "parallel"] = "sequential"
    shared_weights: bool = False
    self_attention: bool = False
    feed_forward: bool = True
    audio: Literal["segments", "patches"] = "segments"
    candidates: int = 0

    def __post_init__(self) -> None:
        check_multiple(self, "dim")
        check_positive(self, "modules")
        if self.candidates < 0:
            raise InputError("candidates counts from 0, which means all", value=self.candidates)
        if self.wiring == "parallel" and self.shared_weights and self.modules > 1:
            raise InputError(
                "parallel modules with shared weights all compute the same",
                value=self.modules,
                remedy="use separate weights, or wire them sequentially",
            )


class CoAttentionModule(nn.Module):
    """The weights of one module; a module's layers are functions of them, so that tiles touch no parameter."""

    def __init__(self, dim: int, layers: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        super().__init__()
        shapes = {
            "in_weight": (3 * dim, dim),
            "in_bias": (3 * dim,),
            "out_weight": (dim, dim),
            "up_weight": (4 * dim, dim),
            "up_bias": (4 * dim,),
            "down_weight": (dim, 4 * dim),
        }
        for layer, parts in layers:
            for part in parts:
                tensor = torch.ones if part == "norm_weight" else torch.zeros
                parameter = nn.Parameter(tensor(shapes.get(part, (dim,))))
                if parameter.dim() == 2:
                    nn.init.xavier_uniform_(parameter)
                self.register_parameter(f"{layer}_{part}", parameter)

    def forward(self) -> tuple[Tensor, ...]:
        """Copies of the weights, in the graph: where parameters are sharded, they are whole only here."""
        return tuple(parameter.clone() for parameter in self.parameters())


class CoAttention(ListedHead):
    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.settings, self.candidates = settings, settings.candidates
        self.uses_patches = settings.audio == "patches"
        kinds = [("self", ATTENTION)] * settings.self_attention + [("cross", ATTENTION)]
        kinds += [("forward", FEED_FORWARD)] * settings.feed_forward
        self.layers = tuple((f"{side}_{kind}", parts) for kind, parts in kinds for side in ("text", "audio"))
        self.text_projection = nn.Linear(text_dim, settings.dim)
        self.audio_projection = nn.Linear(audio_dim, settings.dim)
        count = 1 if settings.shared_weights else settings.modules
        self.cascade = nn.ModuleList(CoAttentionModule(settings.dim, self.layers) for _ in range(count))

    def text_side(self, text: EncodedText) -> Side:
        """Projected tokens ``[b, N, d]`` and their mask ``[b, N]``."""
        tokens, mask = self.words(text)
        return self.text_projection(tokens), mask

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Projected segments or patches ``[b, M, d]`` and their mask ``[b, M]``."""
        vectors, mask = self.vectors(audio)
        return self.audio_projection(vectors), mask

    def shared(self) -> Side:
        """Every module's weights, one after the other."""
        return tuple(tensor for module in self.cascade for tensor in module())

    def pair_elements(self, text: Side, audio: Side) -> int:
        length = max(1, text[0].shape[1]) + max(1, audio[0].shape[1])
        layers = 8 + 10 * self.settings.feed_forward + 8 * self.settings.self_attention
        return self.settings.modules * length * self.settings.dim * layers

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Sequences are ``[r, 1, N, d]`` and ``[1, c, M, d]`` until they meet, then ``[r, c, ...]``."""
        return self._cascaded((text[0][:, None], text[1][:, None]), (audio[0][None], audio[1][None]), shared)

    def listed_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Sequences are ``[p, 1, N, d]`` and ``[p, 1, M, d]``."""
        text, audio = ((side[0][:, None], side[1][:, None]) for side in (text, audio))
        return self._cascaded(text, audio, shared)[:, 0]

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """What each side becomes where its partner adds nothing, averaged: a guess, for nothing here factors."""
        weights = self._unpack(shared)
        found = []
        for name, (vectors, mask) in (("text", text), ("audio", audio)):
            vectors, mask = vectors[:, None], mask[:, None]
            results = []
            for number in range(self.settings.modules):
                module = weights[0 if self.settings.shared_weights else number]
                after = self._alone(module, name, vectors, mask)
                if self.settings.wiring == "sequential":
                    vectors = after
                results.append(after)
            last = vectors if self.settings.wiring == "sequential" else torch.stack(results).mean(0)
            found.append(F.normalize(_mean(last, mask)[:, 0], dim=-1))
        return found[0], found[1]

    def _cascaded(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Scores of sequences that broadcast against each other: ``[r, c]``."""
        weights = self._unpack(shared)
        tokens, token_mask = text
        vectors, vector_mask = audio
        results = []
        for number in range(self.settings.modules):
            module = weights[0 if self.settings.shared_weights else number]
            after = self._module(module, tokens, vectors, token_mask, vector_mask)
            if self.settings.wiring == "sequential":
                tokens, vectors = after
            else:
                results.append(after)
        if results:
            tokens = torch.stack([first for first, _ in results]).mean(0)
            vectors = torch.stack([second for _, second in results]).mean(0)
        return F.cosine_similarity(_mean(tokens, token_mask), _mean(vectors, vector_mask), dim=-1)

    def _unpack(self, shared: Side) -> list[dict[str, dict[str, Tensor]]]:
        """The weights of each module by layer and part."""
        tensors = iter(shared)
        return [{layer: {part: next(tensors) for part in parts} for layer, parts in self.layers} for _ in self.cascade]

    def _module(
        self,
        weights: dict[str, dict[str, Tensor]],
        text: Tensor,
        audio: Tensor,
        text_mask: Tensor,
        audio_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        heads = self.settings.heads
        if self.settings.self_attention:
            text = _attend(weights["text_self"], text, text, text_mask, heads)
            audio = _attend(weights["audio_self"], audio, audio, audio_mask, heads)
        text, audio = (
            _attend(weights["text_cross"], text, audio, audio_mask, heads),
            _attend(weights["audio_cross"], audio, text, text_mask, heads),
        )
        if self.settings.feed_forward:
            text, audio = (_feed(weights[f"{s}_forward"], x) for s, x in (("text", text), ("audio", audio)))
        return text, audio

    def _alone(self, weights: dict[str, dict[str, Tensor]], side: str, vectors: Tensor, mask: Tensor) -> Tensor:
        """A module without the partner's part: ``[r, 1, N, d]`` to the same."""
        if self.settings.self_attention:
            vectors = _attend(weights[f"{side}_self"], vectors, vectors, mask, self.settings.heads)
        cross = weights[f"{side}_cross"]
        vectors = vectors + cross["out_bias"]
        vectors = F.layer_norm(vectors, vectors.shape[-1:], cross["norm_weight"], cross["norm_bias"])
        return _feed(weights[f"{side}_forward"], vectors) if self.settings.feed_forward else vectors


def _attend(weights: dict[str, Tensor], queries: Tensor, source: Tensor, mask: Tensor, heads: int) -> Tensor:
    """``LN(X + MHA(X, Y, Y))``: ``[r, c, N, d]`` and ``[r, c, M, d]`` (r or c may be 1) to ``[r, c, N, d]``."""
    dim = queries.shape[-1]
    query_weight, source_weight = weights["in_weight"].split((dim, 2 * dim))
    query_bias, source_bias = weights["in_bias"].split((dim, 2 * dim))
    query = F.linear(queries, query_weight, query_bias).unflatten(-1, (heads, -1)).transpose(2, 3)
    both = F.linear(source, source_weight, source_bias).unflatten(-1, (2, heads, -1))
    key, value = (part.transpose(2, 3) for part in both.unbind(3))
    logits = query @ key.mT / math.sqrt(dim // heads)
    logits = logits.masked_fill(~mask[:, :, None, None], torch.finfo(logits.dtype).min)
    attended = (logits.softmax(-1) @ value).transpose(2, 3).flatten(3)
    added = queries + F.linear(attended, weights["out_weight"], weights["out_bias"])
    return F.layer_norm(added, (dim,), weights["norm_weight"], weights["norm_bias"])


def _feed(weights: dict[str, Tensor], vectors: Tensor) -> Tensor:
    """``LN(X + W_2 relu(W_1 X))``."""
    hidden = F.linear(vectors, weights["up_weight"], weights["up_bias"]).relu()
    added = vectors + F.linear(hidden, weights["down_weight"], weights["down_bias"])
    return F.layer_norm(added, (vectors.shape[-1],), weights["norm_weight"], weights["norm_bias"])


def _mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid rows: ``[r, c, N, d]`` and a mask that broadcasts to ``[r, c, N]``."""
    weights = mask.to(vectors.dtype) / mask.sum(-1, keepdim=True).clamp(min=1)
    return (vectors * weights[..., None]).sum(2)


def build(settings: Settings, audio_dim: int, text_dim: int) -> CoAttention:
    return CoAttention(settings, audio_dim, text_dim)
