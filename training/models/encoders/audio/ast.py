"""AST, the audio spectrogram transformer (Gong et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_positive
from training.models.encoders import AudioEncoder
from training.models.encoders.audio.transformer import AudioSettings, make_model, require_bins, tokens_with_sound
from training.models.encoders.published import Architecture

FRAMES_A_SECOND = 100
ARCHITECTURE = Architecture("ASTModel", "ASTConfig")


@dataclass(frozen=True)
class Settings(AudioSettings):
    """AST; the defaults are the AudioSet model with 10 s segments.

    Attributes:
        interpolate_s: seconds of a segment of another length than the model was trained on; the positions over time
            are interpolated. None: the segments that the model was trained on.
        segment_s, stride: for ``random``: seconds of a segment, and frames and bins from patch to patch.
    """

    encoder: str = "ast"
    source: str = "MIT/ast-finetuned-audioset-10-10-0.4593"
    interpolate_s: float | None = None
    segment_s: float = 10.24
    stride: int = 10

    sizes: ClassVar[tuple[str, ...]] = (*AudioSettings.sizes, "segment_s", "stride")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "interpolate_s", "segment_s", "stride")


class AstEncoder(AudioEncoder):
    """transformers' ``ASTModel``: 128 Kaldi filter banks, 100 frames a second."""

    front_end = "ast"

    def __init__(self, net: Any, settings: Settings) -> None:
        super().__init__()
        self.net = net
        self.segment_s = net.config.max_length / FRAMES_A_SECOND
        self.hop_s = settings.hop_s or self.segment_s
        self.max_s = settings.max_s
        self.dim = net.config.hidden_size

    def blocks(self) -> list[nn.Module]:
        return list(self.net.layers)

    def top(self) -> list[nn.Module]:
        return [self.net.layernorm]

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.net.config
        out = self.net(input_values=features.transpose(1, 2))
        rows, columns = self.net.embeddings.get_shape(config)
        starts = torch.arange(columns, device=frames.device) * config.time_stride
        return out.pooler_output, out.last_hidden_state[:, 2:], tokens_with_sound(frames, starts).repeat(1, rows)


def build(settings: Settings) -> AstEncoder:
    """The encoder that ``settings`` describes."""
    sizes = {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "max_length": round(settings.segment_s * FRAMES_A_SECOND),
        "frequency_stride": settings.stride,
        "time_stride": settings.stride,
    }
    changes = {"hidden_dropout_prob": settings.dropout, "attention_probs_dropout_prob": settings.dropout}
    net = make_model(ARCHITECTURE, settings.source, sizes, changes)
    require_bins(net, 128, settings.source)
    if settings.interpolate_s is not None:
        _interpolate(net, round(settings.interpolate_s * FRAMES_A_SECOND))
    return AstEncoder(net, settings)


def _interpolate(net: Any, frames: int) -> None:
    """Interpolate the positions ``[1, 2 + rows * columns, d]`` over time, for segments of ``frames`` frames."""
    embeddings, config = net.embeddings, net.config
    rows, columns = embeddings.get_shape(config)
    config.max_length = embeddings.config.max_length = frames
    _, wanted = embeddings.get_shape(config)
    if wanted < 1:
        raise InputError("a segment is shorter than a patch", value=frames / FRAMES_A_SECOND)
    with torch.no_grad():
        special, grid = embeddings.position_embeddings.split((2, rows * columns), 1)
        grid = grid.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (rows, wanted), mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)
        embeddings.position_embeddings = nn.Parameter(torch.cat((special, grid), 1))
