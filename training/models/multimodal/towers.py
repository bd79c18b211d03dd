"""The audio towers of multimodal models: from log-mel frames to the tokens that a language model reads.

Every tower gives ``tokens [n, A, d]`` and ``mask [n, A]``, True at the tokens of sound.  Qwen's towers read only the
frames that hold sound, so a clip costs what it lasts; Whisper's encoder always reads its whole segment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.models.encoders.audio.whisper import ARCHITECTURE, POSITIONS_A_SECOND
from training.models.encoders.published import Architecture
from training.models.multimodal.sources import Part

LEAST_FRAMES = 200  # 2 s: shorter sound is read with the silence after it, as in AuroLA's published code


class Tower(ABC):
    """The interface of a tower, whatever its architecture.

    Attributes:
        seconds: the longest sound that the tower reads at once; None: there is no limit.
        projected: whether its tokens already are what the language model reads.
    """

    seconds: float | None
    projected: bool

    def __init__(self, net: Any) -> None:
        self.net = net
        self.dim: int = net.config.d_model
        self.bins: int = net.config.num_mel_bins

    def blocks(self) -> list[nn.Module]:
        """The blocks, lowest first."""
        return list(self.net.layers)

    @abstractmethod
    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[n, A, d]`` and their mask ``[n, A]`` of ``features [n, F, T]``, of which ``frames [n]`` count."""

    def top(self) -> list[nn.Module]:
        """The modules above the last block."""
        return [self.net.layer_norm]


class WhisperTower(Tower):
    """Whisper's encoder: a token every 20 ms, which the projector joins."""

    projected = False

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.seconds = net.config.max_source_positions / POSITIONS_A_SECOND

    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.net(features).last_hidden_state
        return tokens, torch.arange(tokens.shape[1], device=frames.device) < ((frames + 1) // 2)[:, None]


class OmniTower(Tower):
    """The tower of Qwen2.5-Omni: sound of any length in windows, 25 tokens a second."""

    seconds = None
    projected = True

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.dim = net.config.output_dim

    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        frames = frames.clamp(min=min(LEAST_FRAMES, features.shape[-1]))
        sound = torch.arange(features.shape[-1], device=frames.device) < frames[:, None]
        packed = features.transpose(1, 2)[sound].t()
        after_convolutions, counts = self.net._get_feat_extract_output_lengths(frames)
        tokens = self.net(packed, feature_lens=frames, aftercnn_lens=after_convolutions).last_hidden_state
        _, longest = self.net._get_feat_extract_output_lengths(torch.tensor(features.shape[-1]))
        return _padded(tokens, counts, int(longest))

    def top(self) -> list[nn.Module]:
        return [self.net.ln_post, self.net.proj]


class Omni3Tower(OmniTower):
    """The tower of Qwen3-Omni: 12.5 tokens a second."""

    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

        frames = frames.clamp(min=min(LEAST_FRAMES, features.shape[-1]))
        sound = torch.arange(features.shape[-1], device=frames.device) < frames[:, None]
        packed = features.transpose(1, 2)[sound].t()
        tokens = self.net(packed, feature_lens=frames).last_hidden_state
        longest = _get_feat_extract_output_lengths(torch.tensor([features.shape[-1]]))
        return _padded(tokens, _get_feat_extract_output_lengths(frames), int(longest))

    def top(self) -> list[nn.Module]:
        return [self.net.ln_post, self.net.proj1, self.net.proj2]


class Qwen2AudioTower(Tower):
    """The tower of Qwen2-Audio: Whisper's encoder with a mask and a mean over two tokens, 25 a second."""

    projected = True

    def __init__(self, net: Any) -> None:
        self.net, self.tower = net, net.audio_tower
        self.dim, self.bins = net.config.text_config.hidden_size, self.tower.config.num_mel_bins
        self.seconds = self.tower.config.max_source_positions / POSITIONS_A_SECOND

    def blocks(self) -> list[nn.Module]:
        return list(self.tower.layers)

    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        frames = frames.clamp(min=min(LEAST_FRAMES, features.shape[-1]))
        after_convolutions, counts = self.tower._get_feat_extract_output_lengths(frames)
        places = torch.arange(self.tower.config.max_source_positions, device=frames.device)
        heard = (places < after_convolutions[:, None])[:, None, None, :].expand(-1, -1, len(places), -1)
        tokens = self.net(features, heard)
        return tokens, torch.arange(tokens.shape[1], device=frames.device) < counts[:, None]

    def top(self) -> list[nn.Module]:
        return [self.tower.layer_norm, self.net.multi_modal_projector]


def _padded(packed: Tensor, counts: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Tokens ``[n, A, d]`` and their mask from ``packed [sum of counts, d]``; A is ``longest``, whatever the batch."""
    mask = torch.arange(max(longest, 1), device=packed.device) < counts[:, None]
    tokens = packed.new_zeros(*mask.shape, packed.shape[-1])
    tokens[mask] = packed
    return tokens, mask


# Layer drop draws from the generator of the process, so ranks and repeated chunks would differ.
_STILL = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0}
_OMNI = Architecture("Qwen2_5OmniAudioEncoder", "Qwen2_5OmniAudioEncoderConfig", ((r"^(thinker\.)?audio_tower\.", ""),))
_OMNI3 = Architecture(
    "Qwen3OmniMoeAudioEncoder", "Qwen3OmniMoeAudioEncoderConfig", ((r"^(thinker\.)?audio_tower\.", ""),)
)
_QWEN2_AUDIO = Architecture("Qwen2AudioSound", "Qwen2AudioConfig")

PARTS: Mapping[str, Part] = {
    "whisper": Part(ARCHITECTURE, changes=_STILL | {"apply_spec_augment": False}),
    "qwen2_5_omni_audio_encoder": Part(_OMNI, changes=_STILL),
    "qwen2_5_omni_thinker": Part(_OMNI, ("audio_config",), _STILL),
    "qwen2_5_omni": Part(_OMNI, ("thinker_config", "audio_config"), _STILL),
    "qwen2_audio": Part(_QWEN2_AUDIO),
    "qwen3_omni_moe_audio_encoder": Part(_OMNI3, changes=_STILL),
    "qwen3_omni_moe_thinker": Part(_OMNI3, ("audio_config",), _STILL),
    "qwen3_omni_moe": Part(_OMNI3, ("thinker_config", "audio_config"), _STILL),
}
TOWERS: Mapping[str, type[Tower]] = {
    "WhisperEncoder": WhisperTower,
    "Qwen2_5OmniAudioEncoder": OmniTower,
    "Qwen2AudioSound": Qwen2AudioTower,
    "Qwen3OmniMoeAudioEncoder": Omni3Tower,
}
