"""What the audio encoders of the transformers library have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive
from training.models.encoders.published import Architecture, load_model, random_model


@dataclass(frozen=True)
class HubAudioSettings:
    """An audio encoder of the transformers library.

    Attributes:
        source: a hub name, a local folder, or ``random`` for a model of the sizes given here.
        hop_s: seconds between segments; None: segments do not overlap.
        max_s: seconds of a clip that are encoded at most.
        dropout: of hidden states and of attention.
        width, depth, heads: sizes of ``random``.
    """

    encoder: str
    source: str
    hop_s: float | None = None
    max_s: float = 30.0
    dropout: float = 0.0
    width: int = 768
    depth: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        check_positive(self, "hop_s", "max_s", "depth")
        check_multiple(self, "width")
        check_dropout(self, "dropout")


def load(architecture: Architecture, source: str, sizes: dict[str, Any], rates: dict[str, Any]) -> Any:
    """A transformers model: random of ``sizes``, or from ``source``; ``rates`` override either's configuration."""
    if source == "random":
        return random_model(architecture, sizes | rates)
    return load_model(architecture, source, rates)


def require_bins(net: Any, bins: int, source: str) -> None:
    """``InputError`` where a model was made for another number of mel bins than its front end gives."""
    found = net.config.num_mel_bins
    if found != bins:
        raise InputError(
            f"the model was made for {found} mel bins, the encoder's front end gives {bins}",
            file=source,
            remedy="name a model of this family with the published front end",
        )


def heard(frames: Tensor, starts: Tensor) -> Tensor:
    """Which tokens begin inside the sound: ``frames [n]`` and first frames ``starts [P]`` to ``[n, P]``."""
    return starts[None, :] < torch.as_tensor(frames)[:, None]
