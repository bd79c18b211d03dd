"""Co-attention between a caption's tokens and a clip's vectors (arXiv 2412.20914).

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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_multiple, check_positive
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import ListedHead, Side, Whole

SIDES = ("text", "audio")


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
            raise InputError("candidates must be 0 (all) or more", value=self.candidates)
        if self.wiring == "parallel" and self.shared_weights and self.modules > 1:
            raise InputError(
                "parallel modules with shared weights all compute the same",
                value=self.modules,
                remedy="use separate weights, or wire them sequentially",
            )


class Attention(nn.Module):
    """``LN(X + MHA(X, Y, Y))``, a post-norm attention layer for sequences that broadcast against each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_weight, self.in_bias = _matrix(3 * dim, dim), nn.Parameter(torch.zeros(3 * dim))
        self.out_weight, self.out_bias = _matrix(dim, dim), nn.Parameter(torch.zeros(dim))
        self.norm_weight, self.norm_bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """``[r, c, N, d]`` and ``[r, c, M, d]`` with mask ``[r, c, M]`` (r or c may be 1) to ``[r, c, N, d]``."""
        dim = queries.shape[-1]
        query_weight, source_weight = self.in_weight.split((dim, 2 * dim))
        query_bias, source_bias = self.in_bias.split((dim, 2 * dim))
        query = F.linear(queries, query_weight, query_bias).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        both = F.linear(source, source_weight, source_bias).unflatten(-1, (2, self.heads, -1))
        key, value = (part.transpose(2, 3) for part in both.unbind(3))
        logits = query @ key.mT / math.sqrt(dim // self.heads)
        logits = logits.masked_fill(~mask[:, :, None, None], torch.finfo(logits.dtype).min)
        attended = (logits.softmax(-1) @ value).transpose(2, 3).flatten(3)
        return self.normed(queries + F.linear(attended, self.out_weight, self.out_bias))

    def alone(self, queries: Tensor) -> Tensor:
        """The layer where the other sequence adds nothing."""
        return self.normed(queries + self.out_bias)

    def normed(self, vectors: Tensor) -> Tensor:
        return F.layer_norm(vectors, vectors.shape[-1:], self.norm_weight, self.norm_bias)


class FeedForward(nn.Module):
    """``LN(X + W_2 relu(W_1 X))``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up_weight, self.up_bias = _matrix(4 * dim, dim), nn.Parameter(torch.zeros(4 * dim))
        self.down_weight, self.down_bias = _matrix(dim, 4 * dim), nn.Parameter(torch.zeros(dim))
        self.norm_weight, self.norm_bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        hidden = F.linear(vectors, self.up_weight, self.up_bias).relu()
        added = vectors + F.linear(hidden, self.down_weight, self.down_bias)
        return F.layer_norm(added, vectors.shape[-1:], self.norm_weight, self.norm_bias)


class CoAttentionModule(nn.Module):
    """One module: each modality attends to the other, and both are refined."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        dim, heads = settings.dim, settings.heads
        for side in SIDES * settings.self_attention:
            self.add_module(f"{side}_self", Attention(dim, heads))
        for side in SIDES:
            self.add_module(f"{side}_cross", Attention(dim, heads))
        for side in SIDES * settings.feed_forward:
            self.add_module(f"{side}_forward", FeedForward(dim))
        self.settings = settings

    def forward(self, text: Tensor, audio: Tensor, text_mask: Tensor, audio_mask: Tensor) -> tuple[Tensor, Tensor]:
        """``[r, c, N, d]`` and ``[r, c, M, d]`` to the same shapes, broadcast against each other."""
        if self.settings.self_attention:
            text = self.get_submodule("text_self")(text, text, text_mask)
            audio = self.get_submodule("audio_self")(audio, audio, audio_mask)
        text, audio = (
            self.get_submodule("text_cross")(text, audio, audio_mask),
            self.get_submodule("audio_cross")(audio, text, text_mask),
        )
        if self.settings.feed_forward:
            text, audio = self.get_submodule("text_forward")(text), self.get_submodule("audio_forward")(audio)
        return text, audio

    def alone(self, side: str, vectors: Tensor, mask: Tensor) -> Tensor:
        """What the module makes of one modality where the other adds nothing: ``[r, 1, N, d]`` to the same."""
        if self.settings.self_attention:
            vectors = self.get_submodule(f"{side}_self")(vectors, vectors, mask)
        cross = self.get_submodule(f"{side}_cross")
        assert isinstance(cross, Attention)
        vectors = cross.alone(vectors)
        return self.get_submodule(f"{side}_forward")(vectors) if self.settings.feed_forward else vectors


class Cascade(nn.Module):
    """All modules, one after the other or side by side."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        count = 1 if settings.shared_weights else settings.modules
        self.steps = nn.ModuleList(CoAttentionModule(settings) for _ in range(count))

    def forward(self, text: Side, audio: Side) -> Tensor:
        """Scores ``[r, c]`` of sequences that broadcast against each other; each side is vectors and their mask."""
        (tokens, token_mask), (vectors, vector_mask) = text, audio
        results = []
        for module in self._in_order():
            after = module(tokens, vectors, token_mask, vector_mask)
            if self.settings.wiring == "sequential":
                tokens, vectors = after
            else:
                results.append(after)
        if results:
            tokens = torch.stack([first for first, _ in results]).mean(0)
            vectors = torch.stack([second for _, second in results]).mean(0)
        return F.cosine_similarity(_mean(tokens, token_mask), _mean(vectors, vector_mask), dim=-1)

    def alone(self, side: str, vectors: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors ``[r, d]`` of one modality where the other adds nothing: ``[r, N, d]`` and mask ``[r, N]``."""
        vectors, mask = vectors[:, None], mask[:, None]
        results = []
        for module in self._in_order():
            after = module.alone(side, vectors, mask)
            if self.settings.wiring == "sequential":
                vectors = after
            results.append(after)
        last = vectors if self.settings.wiring == "sequential" else torch.stack(results).mean(0)
        return F.normalize(_mean(last, mask)[:, 0], dim=-1)

    def _in_order(self) -> list[Any]:
        """The modules as a pair goes through them; shared weights repeat one."""
        shared = self.settings.shared_weights
        return [self.steps[0 if shared else number] for number in range(self.settings.modules)]


def _matrix(rows: int, columns: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(rows, columns))
    nn.init.xavier_uniform_(parameter)
    return parameter


class CoAttention(ListedHead):
    """One or several modules in which a caption and a clip attend to each other, and the score of what comes out."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.settings, self.candidates = settings, settings.candidates
        self.uses_patches = settings.audio == "patches"
        self.text_projection = nn.Linear(text_dim, settings.dim)
        self.audio_projection = nn.Linear(audio_dim, settings.dim)
        self.cascade = Whole(Cascade(settings))

    def text_side(self, text: EncodedText) -> Side:
        """Projected tokens ``[b, N, d]`` and their mask ``[b, N]``."""
        tokens, mask = self.words(text)
        return self.text_projection(tokens), mask

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Projected segments or patches ``[b, M, d]`` and their mask ``[b, M]``."""
        vectors, mask = self.vectors(audio)
        return self.audio_projection(vectors), mask

    def shared(self) -> Side:
        """Every weight of the modules."""
        weights: Side = self.cascade()
        return weights

    def pair_elements(self, text: Side, audio: Side) -> int:
        length = max(1, text[0].shape[1]) + max(1, audio[0].shape[1])
        layers = 8 + 10 * self.settings.feed_forward + 8 * self.settings.self_attention
        return self.settings.modules * length * self.settings.dim * layers

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Sequences are ``[r, 1, N, d]`` and ``[1, c, M, d]`` until they meet, then ``[r, c, ...]``."""
        return self.cascade.call(shared, (text[0][:, None], text[1][:, None]), (audio[0][None], audio[1][None]))

    def listed_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Sequences are ``[p, 1, N, d]`` and ``[p, 1, M, d]``."""
        text, audio = ((side[0][:, None], side[1][:, None]) for side in (text, audio))
        return self.cascade.call(shared, text, audio)[:, 0]

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """The averaged vectors of each side if its partner adds nothing: an estimate, because no score here factors."""
        return tuple(  # type: ignore[return-value]
            self.cascade.call(shared, name, *side, method="alone")
            for name, side in zip(SIDES, (text, audio), strict=True)
        )


def _mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid rows: ``[r, c, N, d]`` and a mask that broadcasts to ``[r, c, N]``."""
    weights = mask.to(vectors.dtype) / mask.sum(-1, keepdim=True).clamp(min=1)
    return (vectors * weights[..., None]).sum(2)


def build(settings: Settings, audio_dim: int, text_dim: int) -> CoAttention:
    """The head that ``settings`` describes, for encoders of these widths."""
    return CoAttention(settings, audio_dim, text_dim)
