"""Checkpoints of a run, and the export at its end."""

from __future__ import annotations

import time
from typing import Any

import torch

from sharding.common.errors import InputError
from training.engine import checkpoint
from training.engine.remote import EXPORT
from training.models import hub
from training.run.progress import StatusLine
from training.run.training_run import TrainingRun, next_batch

LOGS_S = 60.0  # between two uploads of the logs


def save_checkpoint(run: TrainingRun, validation: dict[str, float] | None) -> dict[str, Any]:
    """Write a checkpoint and return its state; every rank calls this, and the first one writes."""
    parameters, moments = run.engine.parameters(), run.engine.optimizer_moments()
    _refuse_nonfinite(run, parameters)
    taken = run.engine.steps_taken
    state: dict[str, Any] = {
        "epoch": taken // run.order.steps_per_epoch,
        "next": next_batch(run.order, taken),
        "updates": run.engine.updates,
        "recipe_digest": run.digest,
        "plan": run.manifest.dataset.get("plan"),
        "world": run.group.size,
        "torch": torch.__version__,
        "validation": validation or {},
        "frozen": run.frozen,
    }
    if run.is_first_rank:
        saved = checkpoint.save(run.checkpoints, taken, parameters, moments, state)
        rule, metric = run.recipe.checkpoint, run.recipe.validation.metric
        if run.place.remote is None:
            checkpoint.prune(run.checkpoints, rule, metric)
        else:
            _check_claim(run)
            publish_logs(run)
            run.place.remote.publish_checkpoint(saved, rule, metric)
    run.group.barrier("checkpoint")
    return {"step": taken, **state}


def export_run(run: TrainingRun) -> tuple[str, dict[str, float]]:
    """Export the best checkpoint by validation, or else the last one; returns the folder and its figures."""
    figures = {}
    if run.is_first_rank:
        remote, metric, target = run.place.remote, run.recipe.validation.metric, run.folder / EXPORT
        best = checkpoint.best(run.checkpoints, metric) if remote is None else remote.best(metric)
        exported = checkpoint.load(best or checkpoint.find(run.folder))
        hub.save(exported, target, trust_code=True)  # that of this run's own recipe
        figures = exported.state.get("validation", {})
        if remote is not None:
            _check_claim(run)
            remote.publish_export(target)
    return run.place.name(EXPORT), run.group.gather_objects(figures, "export")[0]


def publish_logs(run: TrainingRun, every_s: float = 0.0) -> None:
    """Upload the logs of a run in an object store, unless that was done less than ``every_s`` seconds ago.

    A store that fails is no reason to end a run here: the next checkpoint finds out whether it still fails.
    """
    remote, now = run.place.remote, time.monotonic()
    if remote is None or now - run.logs_published < every_s:
        return
    run.logs_published = now
    try:
        remote.publish_logs()
    except InputError as error:
        StatusLine("", 0).say(f"the logs were not uploaded: {error}")


def _check_claim(run: TrainingRun) -> None:
    """``InputError`` where another trainer took the run over."""
    if run.place.claim is not None:
        run.place.claim.check()


def _refuse_nonfinite(run: TrainingRun, parameters: dict[str, torch.Tensor]) -> None:
    """``InputError`` on every rank if a weight is not finite, because a run cannot be resumed from such weights."""
    trained = [name for name, parameter in run.task.names().items() if parameter.requires_grad]
    nonfinite = [name for name in trained if run.is_first_rank and not parameters[name].isfinite().all()]
    nonfinite = run.group.gather_objects(nonfinite, "weights")[0]
    if nonfinite:
        steps = run.engine.steps_taken
        raise InputError(
            f"{len(nonfinite)} parameters are not finite after {steps} steps; no checkpoint is written",
            file=run.place.name(),
            value=", ".join(nonfinite[:3]),
            remedy="the last checkpoint is intact; lower optimizer.lr or raise optimizer.eps, in another --run",
        )
