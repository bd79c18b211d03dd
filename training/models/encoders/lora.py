"""Low-rank adapters on any encoder (Hu et al. 2021, arXiv 2106.09685, eq. 3), through peft.

A linear layer W is frozen and replaced by ``W x + (alpha / r) B A x``, of which A ``[r, in]`` and B ``[out, r]`` are
trained.  B starts at zero, so training starts with the published encoder.  Nothing else of the encoder is trained but
what `Encoder.beside_adapters` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from sharding.common.errors import InputError
from training.models.encoders import Encoder


@dataclass(frozen=True)
class Adapters:
    """Adapters of one encoder.

    Attributes:
        rank: r.
        alpha: the output of an adapter is multiplied by ``alpha / rank``.
        dropout: on the input of an adapter, in training.
        targets: globs of the names of linear layers inside a block, such as ``*query``; none: all linear layers.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError("rank must be at least 1", value=self.rank)
        if self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError("alpha must be positive and dropout in [0, 1)", value=(self.alpha, self.dropout))


@dataclass(frozen=True)
class LoraSettings:
    """The adapters of each encoder; None: the encoder has none and is trained as the optimizer section says."""

    audio: Adapters | None = None
    text: Adapters | None = None


def adapt(encoder: Encoder, settings: Adapters | None) -> None:
    """Add adapters to an encoder in place, and freeze the rest of it."""
    if settings is None:
        return
    import peft

    targets = [name for name, inside in _linear_layers(encoder) if _matches(inside, settings.targets)]
    if not targets:
        known = sorted({inside for _, inside in _linear_layers(encoder)})
        raise InputError(
            "no linear layer of a block has such a name",
            value=list(settings.targets),
            remedy="there are " + ", ".join(known) if known else "the blocks of the encoder have no linear layer",
        )
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
        ),
        encoder,
    )
    for module in encoder.beside_adapters():
        module.requires_grad_(True)


def merge(encoder: Encoder) -> None:
    """Add the adapters to the weights of their layers in place; the encoder computes the same without adapters."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in encoder.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(encoder.get_submodule(parent), child, module.get_base_layer())
    encoder.requires_grad_(True)


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


def _linear_layers(encoder: Encoder) -> Iterator[tuple[str, str]]:
    """The name in the encoder and the name in its block of every linear layer of the blocks.

    The layers of ``nn.MultiheadAttention`` are left out, since it uses their weights without calling them.
    """
    names = {id(module): name for name, module in encoder.named_modules()}
    for block in encoder.blocks():
        fused = [name for name, module in block.named_modules() if isinstance(module, nn.MultiheadAttention)]
        for inside, module in block.named_modules():
            if isinstance(module, nn.Linear) and not any(inside.startswith(f"{name}.") for name in fused):
                yield names[id(module)], inside
