"""Starting a run from the weights of another one."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from torch import Tensor

from sharding.common.errors import InputError
from training.config.resolved import to_tree
from training.config.sections import InitSettings, Recipe
from training.models.encoders.outside import is_outside
from training.models.hub import open_any
from training.tasks.base import Task

LISTED = 5  # names that a line lists
KIND = ("encoder", "variant")  # keys of an encoder's section: with others, none of its weights would fit


def open_origin(recipe: Recipe, trust_code: bool = False) -> Any:
    """The model that ``init_from`` names, before the recipe's own is made; None: it names none.

    ``trust_code`` says whether to run the Python files of encoders that come with it.

    Raises:
        InputError: there is no such model, it has code that is not trusted, or a part that ``init_from.parts`` lists is
            another encoder there.
    """
    if recipe.init_from is None:
        return None
    opened = open_any(recipe.init_from.model, trust_code)
    theirs, ours = to_tree(opened.recipe), to_tree(recipe)
    for part in ("audio", "text"):
        kinds = [[(tree[part] or {}).get(key) for key in KIND] for tree in (theirs, ours)]
        if any(is_outside(kind[0]) for kind in kinds):  # a user's own file may have moved
            continue
        if part in recipe.init_from.parts and theirs[part] and kinds[0] != kinds[1]:
            shown = [" ".join(filter(None, kind)) for kind in kinds]
            section = yaml.safe_dump(theirs[part], default_flow_style=True, sort_keys=False, width=10**6).strip()
            raise InputError(
                f"init_from.model has another {part} encoder than the recipe, so its weights do not fit",
                file=recipe.init_from.model,
                value=f"{shown[0]}, and the recipe has {shown[1] or 'none'}",
                remedy=f"give the recipe that of the model: --set '{part}={section}'",
            )
    return opened


def initialise(task: Task, settings: InitSettings, origin: Any) -> list[str]:
    """Copy the weights that have the same names and shapes in another model.

    Adapters of the new run are left as they are; the layers that they adapt get the other model's weights.  ``origin``
    is what `open_origin` returned.

    Returns:
        lines that say what was copied, how many tensors new adapters have, what was not found, and what was not used.

    Raises:
        InputError: there is no such part, or nothing fits.
    """
    source = dict(origin.model.state_dict()) | {
        f"loss.{name}": value for name, value in origin.loss.state_dict().items()
    }
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
            "no weight of this model has the name and shape of a weight of the recipe's model",
            file=settings.model,
            value=", ".join(sorted(source)[:3]),
            remedy="name a model with the same encoders or head, or choose other parts",
        )
    adapters = [name for name in missing if ".lora_" in name]  # of this run alone, so the other one has none
    missing = [name for name in missing if name not in set(adapters)]
    used = set(found) | {name.replace(".base_layer.", ".") for name in found}
    unused = [name for name in source if name not in used]
    lines = [f"started from {settings.model}: {len(found)} of {len(own) - len(adapters)} tensors"]
    lines[0] += f", and {len(adapters)} of adapters, which begin anew" if adapters else ""
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


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(sorted(names)[:LISTED]) + more
