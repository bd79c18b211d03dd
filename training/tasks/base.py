"""What one training step trains: a task turns a batch into sides for pair losses and into sums of local losses.

The engine knows nothing but this.  It computes the same loss, gradient and weights for any task at any ZeRO stage, in
one pass or in chunks, on any number of ranks:

    loss = sum over pair terms  of weight * loss over all pairs of the global batch
         + sum over local terms of weight * sum over all samples / number of all samples counted
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.config.sections import Recipe
from training.data.loader import BatchLoader
from training.data.settings import DataSettings
from training.data.stored import NOTHING, Stored
from training.engine.distributed import Group
from training.models.heads.base import Scorer
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.tiled import Items


@dataclass(frozen=True)
class TeacherSides:
    """A teacher of a pair term: a scorer, and the names of its sides among `Outputs.sides`."""

    scorer: Scorer
    rows: str
    columns: str


@dataclass(frozen=True)
class PairTerm:
    """A loss over all pairs of the global batch: every rank's rows against every rank's columns.

    Attributes:
        rows, columns: names of sides among `Outputs.sides`.
        scorer: scores rows against columns; its parameters belong to the task.
        loss: what to make of the scores; its parameters belong to the task.
        weight: the weight of this term in the sum.
        teachers: their scores are averaged and given to the loss.
    """

    rows: str
    columns: str
    scorer: Scorer
    loss: PairLoss
    weight: float = 1.0
    teachers: tuple[TeacherSides, ...] = ()


@dataclass(frozen=True)
class LocalSum:
    """A loss summed over this rank's samples, and how many were counted.

    Attributes:
        total: the sum, ``[]``, with gradient.
        count: how many samples, tokens or other units the sum has, ``[]`` without gradient.
    """

    total: Tensor
    count: Tensor


@dataclass
class Outputs:
    """The outputs of a task for the samples of one rank, or for a chunk of them.

    Attributes:
        sides: by name what the pair terms score; the tensors of a side have one row for each item.
        local: by name the sums over the samples.
    """

    sides: dict[str, Items] = field(default_factory=dict)
    local: dict[str, LocalSum] = field(default_factory=dict)

    def without_samples(self) -> Outputs:
        """The outputs of no sample: empty sides, and sums that are 0 but keep their graph."""
        sides = {
            name: Items(tuple(tensor[:0] for tensor in items.side), items.ids[:0]) for name, items in self.sides.items()
        }
        local = {name: LocalSum(found.total * 0, found.count * 0) for name, found in self.local.items()}
        return Outputs(sides, local)


class Task(nn.Module, ABC):
    """A module that holds everything that a run trains."""

    @abstractmethod
    def forward(self, batch: Any) -> Outputs:
        """The outputs for a batch that the terms of the loss need."""

    def fixed_sides(self, batch: Any) -> dict[str, Items]:
        """Sides without gradient that terms need besides those of `forward`, such as a teacher's.

        The cached step asks for them once for each chunk, and not again when it encodes the chunk with gradient.
        The batch may be empty.
        """
        return {}

    def terms(self) -> Mapping[str, PairTerm]:
        """The pair terms by name."""
        return {}

    def weights(self) -> Mapping[str, float]:
        """The weight of each local term by name."""
        return {}

    def towers(self) -> Mapping[str, Any]:
        """Encoders by the name under which recipes freeze them by depth and slow their lower blocks."""
        return {}

    def health(self, sides: Mapping[str, Items], group: Group) -> dict[str, float]:
        """Figures of the model for the log; a collective call."""
        return {}

    def names(self) -> dict[str, nn.Parameter]:
        """Parameters by the name that checkpoints and recipes use: ``audio.…``, ``text.…``, ``head.…``, ``loss.…``."""
        return {_short(name): parameter for name, parameter in self.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter's values and every saved buffer by name."""
        values = {name: parameter.data for name, parameter in self.names().items()}
        return values | self.saved_buffers()

    def saved_buffers(self) -> dict[str, Tensor]:
        """Buffers that belong into a checkpoint, by name."""
        parameters = {_short(name) for name, _ in self.named_parameters(remove_duplicate=False)}
        state = {_short(name): value for name, value in self.state_dict().items()}
        return {name: value for name, value in state.items() if name not in parameters}


class RunTask(Task):
    """A task that `training.run.loop.fit` can run: it also knows how its data are read and how it is validated.

    Attributes:
        stored: vectors of frozen encoders that were computed before; `loader` and `figures` use them.
        unit: what a batch has so many of, in the plural.
    """

    stored: Stored = NOTHING
    unit: str = "clips"

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that a run keeps; None: the task reads no text."""
        return None

    def why_not_stored(self, part: str, encoder: str) -> str | None:
        """Why the vectors of a frozen encoder, ``audio`` or ``text``, cannot be stored; None: they can.

        ``encoder`` is its name (`training.models.encoders.naming.encoder_name`).  A task that says None has a
        `training.models.clips.ClipModel` as its model, and says by ``keeps_words`` whether vectors of tokens are used.
        """
        return "the task reads no stored vectors"

    @abstractmethod
    def loader(
        self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device
    ) -> BatchLoader:
        """The training batches of this rank, of an order over a source (see ``open_source`` in `training.tasks`)."""

    @abstractmethod
    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        """The figures of ``validation.split`` by name, the same on every rank; a collective call.

        Args:
            engine: `training.engine.step.Engine`, which trains this task.
            source: the data that hold the split.
            recipe: says which split, and how it is read.
            group: the ranks.
        """


def _short(name: str) -> str:
    """A parameter's name without the model's attribute and without torch's checkpoint wrapper."""
    return name.removeprefix("model.").replace("_checkpoint_wrapped_module.", "")
