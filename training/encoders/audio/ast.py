"""AST, the audio spectrogram transformer (Gong et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.encoders import AudioEncoder
from training.encoders.audio.hub import HubAudioSettings, heard, load


@dataclass(frozen=True)
class Settings(HubAudioSettings):
    """AST; the defaults are the AudioSet model with 10 s segments."""

    encoder: str = "ast"
    source: str = "MIT/ast-finetuned-audioset-10-10-0.4593"
    segment_s: float = 10.24
    stride: int = 10


class AstEncoder(AudioEncoder):
    """transformers' ``ASTModel``: 128 Kaldi filter banks, 100 frames a second."""

    front_end = "ast"

    def __init__(self, net: Any, settings: Settings) -> None:
        super().__init__()
        self.net = net
        self.segment_s = net.config.max_length / 100
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
        rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        columns = (config.max_length - config.patch_size) // config.time_stride + 1
        starts = torch.arange(columns, device=frames.device) * config.time_stride
        return out.pooler_output, out.last_hidden_state[:, 2:], heard(frames, starts).repeat(1, rows)


def build(settings: Settings) -> AstEncoder:
    """The encoder that ``settings`` describes."""
    sizes = {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "max_length": round(settings.segment_s * 100),
        "frequency_stride": settings.stride,
        "time_stride": settings.stride,
    }
    rates = {"hidden_dropout_prob": settings.dropout, "attention_probs_dropout_prob": settings.dropout}
    return AstEncoder(load("ASTModel", "ASTConfig", settings.source, sizes, rates), settings)
