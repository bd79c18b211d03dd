"""The training loop: one recipe, one build, one run folder, any number of ranks.

The folder of a run holds ``recipe.yaml`` (as resolved), ``metrics.jsonl``, ``checkpoints/``, ``tokenizer/`` and, at
the end, ``export/``.  The same command started again resumes from the newest checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.sampling.order import batch_name
from training.engine.distributed import Group
from training.engine.step import StepResult
from training.run.checks import check_recipe, with_found_splits
from training.run.lock import hold_run_folder
from training.run.log import NOT_FINITE, MetricsLog, speed_name
from training.run.progress import StatusLine
from training.run.saving import LOGS_S, export_run, publish_logs, save_checkpoint
from training.run.starts import noted
from training.run.training_run import TrainingRun, start_run
from training.tasks import task_module

Report = Callable[[dict[str, Any]], None]
CALMER = "lower optimizer.lr, clip gradients"


def fit(
    recipe: Recipe,
    manifest: Any,
    place: str | Path,
    group: Group,
    report: Report | None = None,
    trust_code: bool = False,
    watch: Report | None = None,
) -> dict[str, Any]:
    """Train to the end of the recipe's schedule; every rank calls this.

    Args:
        recipe: what to train.
        manifest: the source of the data, from `open_source` of the recipe's task.
        place: the folder of the run, which every rank sees, or an address such as ``s3://bucket/run``; the run resumes
            from a checkpoint in it.
        group: the ranks, from `training.engine.launch.ranks`.
        report: called on every rank with the state of each checkpoint.
        trust_code: whether to run the Python files of encoders that come with teachers and with ``init_from``.
        watch: called on the first rank with the record of each step.

    Returns:
        the steps, how many of them were skipped because they were not finite, the last loss (None: no step was
        taken, or the loss was not finite), the folder of the export and its validation figures.
    """
    recipe, found = with_found_splits(recipe, manifest.table)
    for line in found:
        StatusLine("", 0, quiet=group.rank > 0).say(line)
    check_recipe(recipe, manifest)
    recipe = task_module(recipe).complete(recipe, manifest)
    with hold_run_folder(recipe, place, group) as held:
        run = start_run(recipe, manifest, held, group, trust_code)
        try:
            return _train(run, report, watch)
        finally:
            run.engine.close()


def _train(run: TrainingRun, report: Report | None, watch: Report | None) -> dict[str, Any]:
    """Take the steps that are left, and export the model."""
    resumed_from = run.engine.steps_taken
    progress = StatusLine("steps", run.steps, resumed_from, quiet=not run.is_first_rank)
    log: MetricsLog | None = None
    try:
        with noted(run):
            log = MetricsLog(run.folder, resumed_from, run.recipe.log, watch) if run.is_first_rank else None
            progress.say(_headline(run))
            last = _take_steps(run, report, progress, log)
            exported, validation = export_run(run)
    finally:
        if log is not None:
            log.close()
            publish_logs(run)
    loss = last.get("loss")
    return {
        "run": run.place.name(),
        "steps": run.engine.steps_taken,
        "skipped": _count_skipped(run),
        "resumed_from": resumed_from,
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "validation": validation,
        "export": exported,
    }


def _take_steps(
    run: TrainingRun, report: Report | None, progress: StatusLine, log: MetricsLog | None
) -> dict[str, Any]:
    """Take the steps that are left, with validations and checkpoints; returns the record of the last step."""
    record: dict[str, Any] = {}
    for epoch, batch, waited_s in _batches(run):
        record = _take_step(run, epoch, batch, waited_s)
        figures = _validate(run, progress) if _is_due(run, run.recipe.validation.every) else None
        if figures is not None:
            record["validation"] = figures
        if log is not None:
            log.write(record)
            publish_logs(run, every_s=LOGS_S)
            progress.update(run.engine.steps_taken, f"loss {record['loss']:.4f}")
        if _is_due(run, 0):
            _check_skipped(run)
        # A validated step is saved, or the best step could not be kept.
        validated = figures is not None and run.recipe.checkpoint.keep_best > 0
        if validated or _is_due(run, run.recipe.checkpoint.every):
            state = save_checkpoint(run, figures)
            if report is not None:
                report(state)
    return record


def _batches(run: TrainingRun) -> Iterator[tuple[int, Batch, float]]:
    """Epoch, batch and seconds of waiting for the batch, for every step that is left."""
    while run.engine.steps_taken < run.steps:
        epoch, step = divmod(run.engine.steps_taken, run.order.steps_per_epoch)
        batches = run.loader.epoch(epoch, step)
        for _ in range(step, run.order.steps_per_epoch):
            asked = time.monotonic()
            batch = next(batches)
            yield epoch, batch, time.monotonic() - asked
            if run.engine.steps_taken >= run.steps:
                return


def _take_step(run: TrainingRun, epoch: int, batch: Batch, waited_s: float) -> dict[str, Any]:
    """Take a step and return its record.  After a step that is not finite, stop or go on as the recipe says."""
    # Of the rank that waited longest, because the others wait for it inside the step.
    waited_s = float(run.group.max(torch.tensor(waited_s, dtype=torch.float64), "waiting"))
    step, began = run.engine.steps_taken, time.monotonic()
    received = run.group.bytes_received
    rate = run.engine.schedule.rate(step)
    result = run.engine.step(batch)
    seconds = time.monotonic() - began + waited_s
    step_of_epoch = step % run.order.steps_per_epoch
    clips, name = run.group.sum(torch.tensor([len(batch), batch.name_part]), "size and name of the batch").tolist()
    if not (result.applied and math.isfinite(result.loss)):
        keys = [key for share in run.group.gather_objects(batch.keys, "keys") for key in share]
        _handle_nonfinite(run, step, keys, result)
    record = {
        "step": step,
        "time": round(time.time(), 3),
        "epoch": epoch,
        "loss": result.loss,
        "loss_parts": result.parts,
        "lr": rate,
        "grad_norm": result.grad_norm,
        "batch": batch_name(name),
        "applied": result.applied,
        speed_name(run.task.unit): clips / seconds,
        "data_wait": waited_s / seconds,
        "loss_bytes_received": run.group.bytes_received - received,
        "damaged": _count_damaged(run),
        "kin_met": run.order.count_kin_repeats(epoch, step_of_epoch),
    }
    if run.recipe.log.health and step % run.recipe.log.health == 0:
        record |= run.task.health(result.sides, run.group)
    return record


def _count_damaged(run: TrainingRun) -> int:
    """How many samples all ranks have left out since the last start; 0 if the recipe allows none."""
    if not run.recipe.data.max_failures:
        return 0
    return int(run.group.sum(torch.tensor([len(run.loader.failures)]), "damaged samples"))


def _handle_nonfinite(run: TrainingRun, step: int, keys: list[str], result: StepResult) -> None:
    """Note the samples of a step that is not finite, and stop if the recipe says so."""
    if run.is_first_rank:
        with (run.folder / NOT_FINITE).open("a", encoding="utf-8") as file:
            line = {"step": step, "loss": str(result.loss), "grad_norm": str(result.grad_norm), "keys": keys}
            file.write(json.dumps(line) + "\n")
    if run.recipe.engine.nonfinite == "stop":
        raise InputError(
            f"loss or gradient of step {step} is not finite; the weights are those before it",
            file=run.place.name(NOT_FINITE),
            value=(result.loss, result.grad_norm),
            remedy=f"look at the {run.task.unit} there; {CALMER}, or set engine.nonfinite: skip",
        )


def _count_skipped(run: TrainingRun) -> int:
    """How many steps of the whole run were skipped because their loss or gradient was not finite."""
    return run.engine.steps_taken - run.engine.updates


def _check_skipped(run: TrainingRun) -> None:
    """``InputError`` on every rank if a larger share of the steps was skipped than the recipe allows."""
    skipped, taken = _count_skipped(run), run.engine.steps_taken
    if skipped > run.recipe.engine.max_skipped * taken:
        raise InputError(
            f"{skipped} of {taken} steps were skipped because they were not finite",
            file=run.place.name(NOT_FINITE),
            value=run.recipe.engine.max_skipped,
            remedy=f"look at the {run.task.unit} there; {CALMER}, or raise engine.max_skipped",
        )


def _is_due(run: TrainingRun, every: int) -> bool:
    """Whether something is due that happens every ``every`` steps (0: at the end of each epoch) and at the end."""
    taken = run.engine.steps_taken
    return taken >= run.steps or taken % (every or run.order.steps_per_epoch) == 0


def _validate(run: TrainingRun, progress: StatusLine) -> dict[str, float] | None:
    """The figures of the validation split by name, such as ``text_to_audio/R@1``; None without such a split."""
    settings = run.recipe.validation
    if settings.split is None:
        return None
    figures = run.task.figures(run.engine, run.manifest, run.recipe, run.group)
    progress.say(f"step {run.engine.steps_taken}: {settings.split} {settings.metric} {figures[settings.metric]:.4f}")
    return figures


def _headline(run: TrainingRun) -> str:
    """One line about the run for the terminal."""
    schedule = run.engine.schedule
    return (
        f"{run.order.draws_per_epoch:,} {run.task.unit} an epoch, {quantity(run.order.steps_per_epoch, 'step')} of "
        f"{run.recipe.data.batch_size}, {quantity(run.group.size, 'rank')}, "
        f"{run.trained_count() / 1e6:.1f} M trained parameters, "
        f"steps {run.engine.steps_taken} to {run.steps}"
        + (f"; the warm-up would take them all and is cut to {schedule.warmup}" if schedule.is_shortened else "")
    )
