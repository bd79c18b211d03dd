"""The encoder of Whisper (Radford et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_positive
from training.models.encoders import AudioEncoder
from training.models.encoders.audio.transformer import AudioSettings, make_model, tokens_with_sound
from training.models.encoders.pooling import masked_mean, masked_statistics
from training.models.encoders.published import Architecture

POSITIONS_A_SECOND = 50
LONGEST_S = 30.0
FRONT_ENDS = {80: "whisper", 128: "whisper-128"}  # by mel bins; large-v3 has 128
# Published files hold the decoder too.
ARCHITECTURE = Architecture("WhisperEncoder", "WhisperConfig", ((r"^(model\.)?encoder\.", ""),))


@dataclass(frozen=True)
class Settings(AudioSettings):
    """Whisper's encoder; the defaults are whisper-small.

    Attributes:
        segment_s: seconds of a segment, at most those of the model, which are 30; a shorter segment takes the first of
            the model's positions. None: the whole. The time of a step grows faster than the segment.
        pooled: the vector of a segment: ``last``, the mean of the last layer over time, or ``layers``, mean and
            standard deviation over time of the input of the first block and of the output of every block, each with its
            mean and its length taken out. A model of speech knows most about other sounds in its middle layers
            (arXiv 2307.03183).
    """

    encoder: str = "whisper"
    source: str = "openai/whisper-small"
    segment_s: float | None = None
    pooled: Literal["last", "layers"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "segment_s")


class WhisperEncoder(AudioEncoder):
    """The encoder half of transformers' ``WhisperModel``: a mel frame every 10 ms, a token every 20 ms."""

    def __init__(self, net: Any, settings: Settings) -> None:
        super().__init__()
        self.net = net
        self.front_end = FRONT_ENDS[net.config.num_mel_bins]
        self.segment_s = net.config.max_source_positions / POSITIONS_A_SECOND
        self.hop_s = settings.hop_s or self.segment_s
        self.max_s = settings.max_s
        self.token_dim = net.config.d_model
        self.by_layers = settings.pooled == "layers"
        self.dim = 2 * self.token_dim * (len(net.layers) + 2) if self.by_layers else self.token_dim

    def blocks(self) -> list[nn.Module]:
        return list(self.net.layers)

    def top(self) -> list[nn.Module]:
        return [self.net.layer_norm]

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.by_layers:
            tokens = self.net(features).last_hidden_state
            mask = self._mask(frames, tokens)
            return masked_mean(tokens, mask), tokens, mask
        states = self._layers(features)
        mask = self._mask(frames, states[-1])
        # The norms of layers differ by a factor of ten, and a head would hear the largest alone.
        parts = [F.layer_norm(part, part.shape[1:]) for state in states for part in masked_statistics(state, mask)]
        return torch.cat(parts, 1), states[-1], mask

    def _mask(self, frames: Tensor, tokens: Tensor) -> Tensor:
        return tokens_with_sound(frames, 2 * torch.arange(tokens.shape[1], device=frames.device))

    def _layers(self, features: Tensor) -> list[Tensor]:
        """The input of the first block, the output of every block, and the last one behind the norm, ``[n, P, d]``."""
        net = self.net
        vectors = F.gelu(net.conv2(F.gelu(net.conv1(features)))).transpose(1, 2) + net.embed_positions.weight
        found = [F.dropout(vectors, net.dropout, net.training)]
        for block in net.layers:
            found.append(block(found[-1], None))
        return [*found, net.layer_norm(found[-1])]


def build(settings: Settings) -> WhisperEncoder:
    """The encoder that ``settings`` describes."""
    sizes = {
        "d_model": settings.width,
        "encoder_layers": settings.depth,
        "encoder_attention_heads": settings.heads,
        "encoder_ffn_dim": 4 * settings.width,
        "max_source_positions": round((settings.segment_s or LONGEST_S) * POSITIONS_A_SECOND),
    }
    # Layer drop draws from the generator of the process, so ranks and repeated chunks would differ.
    changes = {
        "dropout": settings.dropout,
        "attention_dropout": settings.dropout,
        "encoder_layerdrop": 0.0,
        "apply_spec_augment": False,
    }
    net = make_model(ARCHITECTURE, settings.source, sizes, changes)
    if net.config.num_mel_bins not in FRONT_ENDS:
        raise InputError("no front end computes so many mel bins", file=settings.source, value=net.config.num_mel_bins)
    if settings.segment_s is not None:
        cut_positions(net, settings.segment_s, settings.source)
    return WhisperEncoder(net, settings)


def cut_positions(net: Any, segment_s: float, source: str) -> None:
    """Keep the first positions of a Whisper encoder, those of ``segment_s`` seconds.

    Raises:
        InputError: the model, which ``source`` names, has no so long or so short segments.
    """
    positions, wanted = net.embed_positions.weight, round(segment_s * POSITIONS_A_SECOND)
    if not 1 <= wanted <= len(positions):
        raise InputError(
            "segment_s is not a length that this model can read",
            file=source,
            value=segment_s,
            remedy=f"at least {1 / POSITIONS_A_SECOND:g} and at most {len(positions) / POSITIONS_A_SECOND:g} s",
        )
    net.embed_positions = nn.Embedding.from_pretrained(positions[:wanted].detach().clone(), freeze=True)
    net.max_source_positions = net.config.max_source_positions = wanted
