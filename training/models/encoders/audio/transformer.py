"""Shared parts of the audio encoders of the transformers library: settings, loading, checks and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive, refuse_sizes
from training.models.encoders.published import Architecture, load_model, random_model


@dataclass(frozen=True)
class AudioSettings:
    """Settings of an audio encoder of the transformers library.

    Attributes:
        encoder: the name of the encoder.
        source: a name on the Hugging Face hub, a local folder, or ``random`` for a model of the sizes given here.
        hop_s: seconds from the start of one segment to the start of the next one; None: segments do not overlap.
        max_s: the most seconds of a clip that are encoded.
        dropout: the dropout of hidden states and of attention.
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

    sizes: ClassVar[tuple[str, ...]] = ("width", "depth", "heads")

    def __post_init__(self) -> None:
        refuse_sizes(self, "the source", "leave the key out, or set source to random")
        check_positive(self, "hop_s", "max_s", "depth")
        check_multiple(self, "width")
        check_dropout(self, "dropout")

    def decided_by_source(self) -> tuple[str, ...]:
        """The keys that hold for ``random`` alone, where the source is another one."""
        return () if self.source == "random" else self.sizes


def make_model(architecture: Architecture, source: str, sizes: dict[str, Any], changes: dict[str, Any]) -> Any:
    """A model of the transformers library.

    Args:
        architecture: its classes.
        source: as in the settings.
        sizes: the configuration of a random model.
        changes: settings of the configuration that a random and a published model have alike, such as dropout.
    """
    if source == "random":
        return random_model(architecture, sizes | changes)
    return load_model(architecture, source, changes)


def require_bins(net: Any, bins: int, source: str) -> None:
    """Raise ``InputError`` if a model takes another number of mel bins than the encoder's front end computes."""
    found = net.config.num_mel_bins
    if found != bins:
        raise InputError(
            f"the model takes {found} mel bins, the encoder's front end computes {bins}",
            file=source,
            remedy="name a model that was trained on the front end of the published ones",
        )


def tokens_with_sound(frames: Tensor, starts: Tensor) -> Tensor:
    """``[n, P]``, True for tokens that begin, at frames ``starts [P]``, before the end of sound ``frames [n]``."""
    return starts[None, :] < torch.as_tensor(frames)[:, None]
