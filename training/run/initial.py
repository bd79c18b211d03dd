"""Starting a run from the weights of another one."""

from __future__ import annotations

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.config.sections import InitSettings
from training.models.hub import open_any
from training.tasks.base import Task

LISTED = 5  # names that a line lists


def initialise(task: Task, settings: InitSettings, trust_code: bool = False) -> list[str]:
    """Copy the weights that have the same names and shapes in another model.

    Adapters of the new run are left as they are; the layers that they adapt get the other model's weights.
    ``trust_code`` says whether to run the Python files of encoders that come with the other model.

    Returns:
        lines that say what was copied, what was not found, and what was not used.

    Raises:
        InputError: there is no such model, it has code that is not trusted, there is no such part, or nothing fits.
    """
    source = _values(settings.model, trust_code)
    own = _own(task, settings)
    found, missing = [], []
    with torch.no_grad():
        for name, tensor in own.items():
            value = source.get(name, source.get(name.replace(".base_layer.", ".")))
            if value is not None and value.shape == tensor.shape:
                tensor.copy_(value)
                found.append(name)
            else:
                missing.append(name)
    if not found:
        raise InputError(
            "no weight of it has the name and shape of one of the recipe's",
            file=settings.model,
            value=", ".join(sorted(source)[:3]),
            remedy="name a model with the same encoders or head, or choose other parts",
        )
    used = set(found) | {name.replace(".base_layer.", ".") for name in found}
    unused = [name for name in source if name not in used]
    lines = [f"started from {settings.model}: {len(found)} of {len(own)} tensors"]
    lines += [f"  not found there: {_listed(missing)}"] if missing else []
    lines += [f"  not used: {_listed(unused)}"] if unused else []
    return lines


def _own(task: Task, settings: InitSettings) -> dict[str, Tensor]:
    """The run's own tensors, of the chosen parts."""
    own = task.tensors()
    there = sorted({name.partition(".")[0] for name in own})
    for part in settings.parts:
        if part not in there:
            raise InputError("init_from.parts: the model has no such part", value=part, remedy=", ".join(there))
    return {
        name: tensor for name, tensor in own.items() if not settings.parts or name.partition(".")[0] in settings.parts
    }


def _values(path: str, trust_code: bool) -> dict[str, Tensor]:
    """The tensors of an export, a checkpoint or a run by name."""
    opened = open_any(path, trust_code)
    return dict(opened.model.state_dict()) | {f"loss.{name}": value for name, value in opened.loss.state_dict().items()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(sorted(names)[:LISTED]) + more
