"""data2vec-audio (Baevski et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import check_positive
from training.models.encoders import AudioEncoder
from training.models.encoders.audio.transformer import AudioSettings, make_model
from training.models.encoders.pooling import masked_mean
from training.models.encoders.published import Architecture

LONGEST_S = 3600.0  # attention over a longer segment fits into no memory
ARCHITECTURE = Architecture("Data2VecAudioModel", "Data2VecAudioConfig")


@dataclass(frozen=True)
class Settings(AudioSettings):
    """data2vec-audio on waveforms at 16 kHz; the defaults are data2vec-audio-base."""

    encoder: str = "data2vec"
    source: str = "facebook/data2vec-audio-base"
    segment_s: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "segment_s")
        if self.segment_s > LONGEST_S:
            raise InputError(f"segment_s is above {LONGEST_S:g} s", value=self.segment_s, remedy="use shorter segments")


class Data2VecEncoder(AudioEncoder):
    """transformers' ``Data2VecAudioModel``: it takes samples and gives a token every 20 ms."""

    front_end = "waveform"

    def __init__(self, net: Any, settings: Settings) -> None:
        super().__init__()
        self.net = net
        self.segment_s = settings.segment_s
        self.hop_s = settings.hop_s or settings.segment_s
        self.max_s = settings.max_s
        self.dim = net.config.hidden_size

    def blocks(self) -> list[nn.Module]:
        return list(self.net.encoder.layers)

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        samples = torch.arange(features.shape[-1], device=frames.device)
        present = (samples[None, :] < frames[:, None]).long()
        tokens = self.net(features[:, 0], attention_mask=present).last_hidden_state
        counts = self.net._get_feat_extract_output_lengths(frames).clamp(min=1)
        mask = torch.arange(tokens.shape[1], device=frames.device)[None, :] < counts[:, None]
        return masked_mean(tokens, mask), tokens, mask


def build(settings: Settings) -> Data2VecEncoder:
    """The encoder that ``settings`` describes."""
    sizes = {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "conv_dim": (min(settings.width, 512),) * 7,
    }
    # Layer drop and time masking draw from the generator of the process, so ranks would differ; the loader masks.
    changes = {
        "hidden_dropout": settings.dropout,
        "attention_dropout": settings.dropout,
        "activation_dropout": settings.dropout,
        "feat_proj_dropout": settings.dropout,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
    }
    net = make_model(ARCHITECTURE, settings.source, sizes, changes)
    return Data2VecEncoder(net, settings)
