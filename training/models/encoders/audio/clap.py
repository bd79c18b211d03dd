"""HTS-AT (Chen et al. 2022), the audio tower of CLAP (Wu et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.models.encoders import AudioEncoder
from training.models.encoders.audio.transformer import AudioSettings, make_model, require_bins, tokens_with_sound
from training.models.encoders.published import Architecture

FRAMES = 1001  # in 10 s
# Published files hold both towers, and the names of the audio tower begin with audio_model.
ARCHITECTURE = Architecture("ClapAudioModel", "ClapAudioConfig", ((r"^audio_model\.", ""),))


@dataclass(frozen=True)
class Settings(AudioSettings):
    """CLAP's audio tower: ``width`` is that of the last of its four stages, ``depth`` the blocks of each stage."""

    encoder: str = "clap"
    source: str = "laion/clap-htsat-unfused"
    depth: int = 2
    heads: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 8:
            raise InputError("width must be a multiple of 8: each stage has half of the next one's", value=self.width)


class ClapEncoder(AudioEncoder):
    """transformers' ``ClapAudioModel``: 10 s at 48 kHz, 64 mels, 1001 frames.

    Models with feature fusion get clips in segments of 10 s too, with the mel filters that they were trained with.  The
    layers that would fuse the parts of a longer clip are not used and not trained.
    """

    front_end = "clap"
    segment_s = 10.0

    def __init__(self, net: Any, settings: Settings) -> None:
        super().__init__()
        self.net = net
        embedding = net.audio_encoder.patch_embed
        self.front_end = "clap-fused" if embedding.enable_fusion else "clap"
        for part in ("fusion_model", "mel_conv2d") if embedding.enable_fusion else ():
            getattr(embedding, part).requires_grad_(False)
        self.hop_s = settings.hop_s or self.segment_s
        self.max_s = settings.max_s
        self.dim = net.config.hidden_size

    def train(self, mode: bool = True) -> ClapEncoder:
        """Batch norms stay in evaluation, since the statistics of one rank are not those of the whole batch."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def blocks(self) -> list[nn.Module]:
        return [block for stage in self.net.audio_encoder.layers for block in stage.blocks]

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """A layer between two stages has the depth of the block below it."""
        joins: dict[int, int] = {}
        below = 0
        for stage in self.net.audio_encoder.layers:
            below += len(stage.blocks)
            if stage.downsample is not None:
                joins |= {id(parameter): below for parameter in stage.downsample.parameters()}
        return ((parameter, joins.get(id(parameter), depth)) for parameter, depth in super().depths())

    def top(self) -> list[nn.Module]:
        return [self.net.audio_encoder.norm]

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        short = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        out = self.net(input_features=features.transpose(1, 2)[:, None], is_longer=short)
        grid = out.last_hidden_state  # [n, d, f, t]
        starts = torch.arange(grid.shape[-1], device=frames.device) * features.shape[-1] / grid.shape[-1]
        return (
            out.pooler_output,
            grid.flatten(2).transpose(1, 2),
            tokens_with_sound(frames, starts).repeat(1, grid.shape[2]),
        )


def build(settings: Settings) -> ClapEncoder:
    """The encoder that ``settings`` describes."""
    sizes = {
        "patch_embeds_hidden_size": settings.width // 8,
        "hidden_size": settings.width,
        "depths": (settings.depth,) * 4,
        "num_attention_heads": tuple(max(1, settings.heads // 2**stage) for stage in (3, 2, 1, 0)),
    }
    changes = {
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
        "drop_path_rate": 0.0,
    }
    return wrap(make_model(ARCHITECTURE, settings.source, sizes, changes), settings)


def wrap(net: Any, settings: Settings) -> ClapEncoder:
    """The encoder of a ``ClapAudioModel``; ``InputError`` if it takes other features or shorter ones."""
    require_bins(net, 64, settings.source)
    config = net.config
    if config.spec_size * (config.spec_size // config.num_mel_bins) < FRAMES:
        raise InputError("the model cannot take 10 s of sound: its spec_size is too small", value=config.spec_size)
    return ClapEncoder(net, settings)
