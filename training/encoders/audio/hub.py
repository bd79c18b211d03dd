"""What the audio encoders of the transformers library have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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


def load(model: str, config: str, source: str, sizes: dict[str, Any], rates: dict[str, Any]) -> Any:
    """A transformers model: random of ``sizes``, or from ``source``; ``rates`` override either's config."""
    import transformers

    model_class = getattr(transformers, model)
    if source == "random":
        return model_class(getattr(transformers, config)(**sizes, **rates))
    return model_class.from_pretrained(source, **rates)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``tokens [n, P, d]`` where ``mask [n, P]``: ``[n, d]``."""
    weight = mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def heard(frames: Tensor, starts: Tensor) -> Tensor:
    """Which tokens begin inside the sound: ``frames [n]`` and first frames ``starts [P]`` to ``[n, P]``."""
    return starts[None, :] < torch.as_tensor(frames)[:, None]
