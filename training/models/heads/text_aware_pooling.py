"""Text-aware attention pooling (Xin et al. 2023, arXiv 2303.05681, section 2; cited by Calvet and Toledano 2025).

A caption's vector ``c_t`` weighs a clip's vectors ``c_a``, and is compared with what it gathers:

    Q = LN(c_t) W_q    K = LN(c_a) W_k    V = LN(c_a) W_v
    H = softmax(Q K^T / sqrt(D)) V W_o    z = LN'(H)    score = cos(c_t, z)

LN is shared between text and audio, as in the method's model X-Pool; the paper does not say.  For segments, the
score of a pair comes exactly from a few numbers per audio: with ``Z_m`` the centred value of segment m pushed
through W_o, ``a`` the weights, gain g and shift s of LN',

    var(H) = a^T (Z Z^T / D) a      |z|^2 = a^T (gZ)(gZ)^T a / var + 2 a . (Z (g s)) / sqrt(var) + |s|^2
    c_t . z = a . (Z (g c_t)) / sqrt(var) + c_t . s

For patches, where those matrices would be larger than H, the same is computed from ``sum of a_m Z_m``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config.checks import check_dropout, check_positive
from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import SHORTEST_SQUARED, Head, Side, full_precision
from training.models.heads.pooling import TextPooling, text_pool


@dataclass(frozen=True)
class Settings:
    """Settings of text-aware attention pooling; defaults as a public implementation of the paper has them.

    Attributes:
        name: the key of the registry.
        dim: width D of the shared space.
        audio: pool over "segments" or over "patches".
        text_pooling: the caption's vector: the "encoder"'s own, the "first" token, or the "mean" over real tokens.
        dropout: on encoder outputs before the projections, in training.
    """

    name: str = "text-aware-pooling"
    dim: int = 2048
    audio: Literal["segments", "patches"] = "segments"
    text_pooling: TextPooling = "encoder"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, "dim")
        check_dropout(self, "dropout")


class OutputNorm(nn.Module):
    """LN': gain and shift of the layer norm behind W_o, whole under sharded parameters."""

    eps = 1e-5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self) -> tuple[Tensor, Tensor]:
        wide = accumulation_dtype(self.weight.dtype)
        return self.weight.to(wide, copy=True), self.bias.to(wide, copy=True)


class TextAwarePooling(Head):
    """A caption's vector weighs the vectors of a clip, and is compared with what it gathers."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        dim = settings.dim
        self.uses_patches = settings.audio == "patches"
        self.text_pooling = settings.text_pooling
        self.dropout = nn.Dropout(settings.dropout)
        self.audio_projection, self.text_projection = nn.Linear(audio_dim, dim), nn.Linear(text_dim, dim)
        self.input_norm, self.output_norm = nn.LayerNorm(dim), OutputNorm(dim)
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.value, self.output = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)

    def text_side(self, text: EncodedText) -> Side:
        """Query ``[b, D]``, ``g c_t / |c_t| [b, D]`` and ``c_t . s / |c_t| [b, 1]``."""
        pooled = text_pool(self.text_pooling, text)
        vector = self.text_projection(self.dropout(pooled))
        query = self.query(self.input_norm(vector)) / math.sqrt(vector.shape[-1])
        unit = F.normalize(vector.to(accumulation_dtype(vector.dtype)), dim=-1)
        gain, shift = self.output_norm()
        return query, unit * gain, (unit * shift).sum(-1, keepdim=True)

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Keys and centred values ``[b, M, D]``, mask ``[b, M]``; for segments also what belongs to one clip."""
        vectors, mask = self.vectors(audio)
        normed = self.input_norm(self.audio_projection(self.dropout(vectors)))
        keys, values = self.key(normed), self.output(self.value(normed))
        values = values.to(accumulation_dtype(values.dtype))
        values = values - values.mean(-1, keepdim=True)
        if self.uses_patches:
            return keys, values, mask
        gain, shift = self.output_norm()
        scaled = values * gain
        constant = (shift @ shift).expand(len(keys), 1)
        with full_precision(values):
            variance = values @ values.mT / values.shape[-1]
            return keys, values, mask, variance, scaled @ scaled.mT, scaled @ shift, constant

    def shared(self) -> Side:
        """For patches: gain and shift of LN', ``[D]`` each."""
        return self.output_norm() if self.uses_patches else ()

    def pair_elements(self, text: Side, audio: Side) -> int:
        return 8 * audio[0].shape[1] + (4 * text[0].shape[1] if self.uses_patches else 8)

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        query, compared, offset = text
        keys, values, mask = audio[:3]
        weights = torch.einsum("rd,cmd->crm", query, keys)
        weights = weights.masked_fill(~mask[:, None], torch.finfo(query.dtype).min).softmax(-1)
        if self.uses_patches:
            gain, shift = shared
            pooled = weights @ values
            scaled = pooled * gain
            dot, linear = torch.einsum("crd,rd->cr", pooled, compared), scaled @ shift
            variance, squared = pooled.square().mean(-1), scaled.square().sum(-1)
            constant = shift @ shift
        else:
            dot = (weights * torch.einsum("rd,cmd->crm", compared, values)).sum(-1)
            linear = (weights @ audio[5][..., None]).squeeze(-1)
            variance, squared = (((weights @ square) * weights).sum(-1) for square in audio[3:5])
            constant = audio[6]
        scale = (variance.clamp(min=0) + OutputNorm.eps).rsqrt()
        length = (squared * scale + 2 * linear) * scale + constant
        return ((dot * scale + offset.t()) * length.clamp(min=SHORTEST_SQUARED).rsqrt()).t()

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """Scores with the clip's vectors weighed evenly; exact where it has one."""
        _, compared, offset = text
        values, mask = audio[1:3]
        gain, shift = shared if self.uses_patches else self.output_norm()
        weights = mask.to(values.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.einsum("cm,cmd->cd", weights, values)
        scaled = pooled * gain.to(pooled)
        scale = (pooled.square().mean(-1, keepdim=True) + OutputNorm.eps).rsqrt()
        length = (scaled * scale + shift.to(pooled)).square().sum(-1, keepdim=True)
        sounds = torch.cat((pooled * scale, torch.ones_like(scale)), 1)
        return torch.cat((compared, offset), 1), sounds * length.clamp(min=SHORTEST_SQUARED).rsqrt()


def build(settings: Settings, audio_dim: int, text_dim: int) -> TextAwarePooling:
    """The head that ``settings`` describes, for encoders of these widths."""
    return TextAwarePooling(settings, audio_dim, text_dim)
