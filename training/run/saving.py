"""Checkpoints of a run, and the export at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from training.config import resolved
from training.engine import checkpoint
from training.models import hub
from training.run.training_run import TrainingRun, next_batch


def save_checkpoint(run: TrainingRun, validation: dict[str, float] | None) -> dict[str, Any]:
    """Write a checkpoint and return its state; every rank calls this, and the first one writes."""
    parameters, moments = run.engine.parameters(), run.engine.optimizer_moments()
    _refuse_nonfinite(run, parameters)
    taken = run.engine.steps_taken
    state: dict[str, Any] = {
        "epoch": taken // run.order.steps_per_epoch,
        "next": next_batch(run.order, taken),
        "updates": run.engine.updates,
        "recipe": resolved.digest(run.recipe),
        "plan": run.manifest.dataset.get("plan"),
        "world": run.group.size,
        "torch": torch.__version__,
        "validation": validation or {},
        "frozen": run.frozen,
    }
    if run.is_first_rank:
        checkpoint.save(run.checkpoints, taken, parameters, moments, state)
        checkpoint.prune(run.checkpoints, run.recipe.checkpoint, run.recipe.validation.metric)
    run.group.barrier("checkpoint")
    return {"step": taken, **state}


def export_run(run: TrainingRun) -> tuple[Path, dict[str, float]]:
    """Export the best checkpoint by validation, or else the last one; returns the folder and its figures."""
    target, figures = run.folder / hub.EXPORT, {}
    if run.is_first_rank:
        chosen = checkpoint.best(run.checkpoints, run.recipe.validation.metric) or checkpoint.find(run.folder)
        exported = checkpoint.load(chosen)
        hub.save(exported, target, trust_code=True)  # that of this run's own recipe
        figures = exported.state.get("validation", {})
    return target, run.group.gather_objects(figures, "export")[0]


def _refuse_nonfinite(run: TrainingRun, parameters: dict[str, torch.Tensor]) -> None:
    """``InputError`` on every rank if a weight is not finite, because a run cannot be resumed from such weights."""
    trained = [name for name, parameter in run.task.names().items() if parameter.requires_grad]
    nonfinite = [name for name in trained if run.is_first_rank and not parameters[name].isfinite().all()]
    nonfinite = run.group.gather_objects(nonfinite, "weights")[0]
    if nonfinite:
        steps = run.engine.steps_taken
        raise InputError(
            f"{len(nonfinite)} parameters are not finite after {steps} steps; no checkpoint is written",
            file=run.folder,
            value=", ".join(nonfinite[:3]),
            remedy="the last checkpoint is intact; lower optimizer.lr or raise optimizer.eps, in another --run",
        )
