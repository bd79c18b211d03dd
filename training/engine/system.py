"""What the engine trains: model and loss as one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.engine.dropout import replayed
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.base import PairLoss


class System(nn.Module):
    """Model and loss as one module, so that DeepSpeed has every parameter in its hands."""

    def __init__(self, model: RetrievalModel, loss: PairLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, call: Callable[[System], Any]) -> Any:
        """All uses of the parameters pass here, where ZeRO-3 gathers them."""
        return call(self)

    def names(self) -> dict[str, nn.Parameter]:
        """Parameters by the name that checkpoints and recipes use: ``audio.…``, ``text.…``, ``head.…`` ..."""
        return {name.removeprefix("model."): parameter for name, parameter in self.named_parameters()}

    def state(self) -> dict[str, Tensor]:
        """Buffers that are saved, by name."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        return {
            name.removeprefix("model."): value for name, value in self.state_dict().items() if name not in parameters
        }


def recompute_blocks(model: RetrievalModel) -> None:
    """Keep only each block's input for the backward pass and run the block again there."""
    for block in (*model.audio.blocks(), *model.text.blocks()):
        block.forward = _Recomputed(block.forward)


class _Recomputed:
    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **options)
        return checkpoint(replayed(self.forward), *inputs, use_reentrant=False, **options)
