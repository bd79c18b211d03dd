"""Which parameters move, how fast, and the torch optimizers that move them.

The averaged weights (EMA) are one more moment of the optimizer: they are sharded, saved and restored like
Adam's, at every ZeRO stage, and nothing else needs to know of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import nearest
from training.config.sections import OptimizerSettings
from training.tasks.base import Task

AVERAGE = "average"  # the moment that holds the averaged weights


def freeze(task: Task, settings: OptimizerSettings) -> None:
    """Take gradients from the parameters that the recipe freezes; a pattern without a match is an error."""
    names, towers = task.names(), task.towers()
    for part, block in settings.freeze_below.items():
        if part not in towers:
            known = ", ".join(towers) or "none"
            raise InputError("optimizer.freeze_below: the task has no such tower", value=part, remedy=f"it has {known}")
        try:
            towers[part].freeze_below(block)
        except InputError as error:
            what = f"optimizer.freeze_below.{part}: {error.what}"
            raise InputError(what, value=block, remedy=error.remedy) from error
    for pattern in settings.freeze:
        for name in _matching(pattern, names, "optimizer.freeze"):
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise InputError("every parameter is frozen: nothing would be trained", value=list(settings.freeze))


def parameter_groups(task: Task, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Trained parameters grouped by their factor on the learning rate (key ``factor``), highest first.

    A factor is that of the first glob in ``rates`` that matches, times ``layer_decay`` for each block below
    the top of the encoder.
    """
    names = task.names()
    for pattern in settings.rates:
        _matching(pattern, names, "optimizer.rates")
    below_top = _below_top(task) if settings.layer_decay < 1 else {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in names.items():
        if not parameter.requires_grad:
            continue
        factor = next((rate for glob, rate in settings.rates.items() if fnmatchcase(name, glob)), 1.0)
        factor *= settings.layer_decay ** below_top.get(id(parameter), 0)
        groups.setdefault(factor, []).append(parameter)
    return [
        {"params": parameters, "factor": factor, "lr": settings.lr * factor}
        for factor, parameters in sorted(groups.items(), reverse=True)
    ]


def make_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings, ema: float) -> torch.optim.Optimizer:
    """Torch's own optimizer over ``groups``; with ``ema`` it keeps the averaged weights as a moment."""
    base: Any
    options: dict[str, Any]
    if settings.name == "sgd":
        base, options = torch.optim.SGD, {}
    else:
        base = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
        options = {"betas": settings.betas, "eps": settings.eps}
    if ema:
        base = _averaged(base, ema)
    return base(groups, lr=settings.lr, weight_decay=settings.weight_decay, **options)


def moment_names(settings: OptimizerSettings, ema: float) -> tuple[str, ...]:
    """The moments that a parameter has, by torch's names."""
    moments = () if settings.name == "sgd" else ("exp_avg", "exp_avg_sq")
    return (*moments, AVERAGE) if ema else moments


def first_state(parameter: Tensor, moments: Iterable[str], steps: int = 0) -> dict[str, Tensor]:
    """The state of ``parameter`` before its first step, as torch would build it, with averages."""
    state: dict[str, Tensor] = {}
    for moment in moments:
        state[moment] = parameter.detach().clone() if moment == AVERAGE else torch.zeros_like(parameter)
    if "exp_avg" in state:
        state["step"] = torch.tensor(float(steps))
    return state


def _averaged(base: Any, decay: float) -> Any:
    class Averaged(base):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.state[parameter][AVERAGE].lerp_(parameter.detach(), 1 - decay)
            return result

    return Averaged


def _below_top(task: Task) -> dict[int, int]:
    """How many blocks are above the block of each parameter of a tower; the parts above the last block count 0."""
    distance: dict[int, int] = {}
    for encoder in task.towers().values():
        blocks = len(encoder.blocks())
        for parameter, depth in encoder.depths():
            distance[id(parameter)] = max(0, blocks - depth)
    return distance


def _matching(pattern: str, names: Iterable[str], key: str) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(
            f"{key}: no parameter has such a name",
            value=pattern,
            remedy=nearest(pattern, names) + "globs are allowed",
        )
    return found
