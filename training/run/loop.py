"""The training loop: one recipe, one build, one run folder, any number of ranks.

A run's folder holds ``recipe.yaml`` (as resolved), ``metrics.jsonl``, ``checkpoints/``, ``tokenizer/`` and at
the end ``export/``.  Starting the same command again goes on from the newest checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from training.config import resolved
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.features import AudioInput
from training.data.loader import Loader
from training.data.mixture import select_rows
from training.data.order import Order, SequentialOrder, batch_hash
from training.engine import checkpoint
from training.engine.distributed import Group
from training.engine.schedule import make_schedule
from training.engine.step import Engine, StepResult
from training.evaluation.retrieval import DIRECTIONS
from training.evaluation.run import evaluate, read_split
from training.models.hub import EXPORT, export
from training.run.health import measure_health
from training.run.lock import hold_run_folder
from training.run.log import NOT_FINITE, MetricsLog, check_log_settings, flatten
from training.run.progress import StatusLine
from training.tasks.retrieval import TOKENIZER, assemble, training_captions, with_tokenizer

Report = Callable[[dict[str, Any]], None]


@dataclass
class Run:
    """Everything that a started run has in its hands."""

    recipe: Recipe
    folder: Path
    manifest: Any
    group: Group
    order: Order
    loader: Loader
    engine: Engine
    tokenizer: Any
    steps: int  # length of the whole run

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.group.rank == 0

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def fit(recipe: Recipe, manifest: Any, folder: Path, group: Group, report: Report | None = None) -> dict[str, Any]:
    """Train to the end of the recipe's schedule; every rank calls it.

    Args:
        recipe: what to train.
        manifest: `sharding.shards.manifest.Manifest` of the build.
        folder: the run's, on storage that every rank sees; a checkpoint in it is gone on from.
        group: the ranks, from `training.engine.step.ranks`.
        report: called on every rank with each checkpoint's state.

    Returns:
        steps, the last loss (None: no step, or not finite), the export's folder and its validation.
    """
    _check(recipe, manifest)
    with hold_run_folder(recipe, folder, group):
        return _train(_start(recipe, manifest, folder, group), report)


def _train(run: Run, report: Report | None) -> dict[str, Any]:
    """Take the steps that are left, and export."""
    begun = run.engine.steps_taken
    log: MetricsLog | None = None
    progress = StatusLine("steps", run.steps, begun, quiet=not run.first)
    last: dict[str, Any] = {}
    try:
        log = MetricsLog(run.folder, begun, run.recipe.log) if run.first else None
        progress.say(_headline(run))
        for epoch, batch, waited in _batches(run):
            record = _step(run, epoch, batch, waited)
            found = _validate(run, progress) if _due(run, run.recipe.validation.every) else None
            last = record | ({} if found is None else {"validation": found})
            if log is not None:
                log.write(last)
                progress.update(run.engine.steps_taken, f"loss {record['loss']:.4f}")
            best = found is not None and run.recipe.checkpoint.keep_best > 0  # else it could not be kept
            if best or _due(run, run.recipe.checkpoint.every):
                state = _save(run, found)
                if report is not None:
                    report(state)
        exported, validation = _export(run)
        loss = last.get("loss")
        return {
            "run": str(run.folder),
            "steps": run.engine.steps_taken,
            "resumed_from": begun,
            "loss": loss if loss is not None and math.isfinite(loss) else None,
            "validation": validation,
            "export": str(exported),
        }
    finally:
        run.engine.close()
        if log is not None:
            log.close()


def _check(recipe: Recipe, manifest: Any) -> None:
    """``InputError`` now for what would be one after an epoch, or what would make figures worthless."""
    check_log_settings(recipe.log)
    split = recipe.validation.split
    if split is None:
        return
    held_out = select_rows(manifest.table, split)
    order = SequentialOrder(manifest.table, split, recipe.data, recipe.validation.batch)
    read_split(manifest.table, split, order, recipe.data)  # a clip without words would end the run after an epoch
    for item in recipe.data.train:
        if (held_out & select_rows(manifest.table, item.split)).any():
            raise InputError(
                "validation.split is trained on: the best checkpoint would be the one that learnt it by heart",
                value=f"{split}, and data.train has {item.split}",
                remedy="name a split that is held out",
            )


def _start(recipe: Recipe, manifest: Any, folder: Path, group: Group) -> Run:
    """Make or restore model and optimizer, and set up the loader."""
    found = _newest(folder, group)
    recipe = with_tokenizer(recipe, folder)
    model, loss = assemble(recipe, training_captions(manifest.table, recipe.data))
    group.barrier("model")  # every rank has looked for a tokenizer before the first one leaves one
    if group.rank == 0 and not (folder / TOKENIZER).is_dir():
        _keep_tokenizer(model.text.tokenizer, folder)
    order = Order(manifest.table, recipe.data, recipe.seed)
    schedule = make_schedule(recipe.optimizer, order.steps_per_epoch)
    state = {} if found is None else found.state
    if found is not None:
        _check_data(found, order)
        checkpoint.restore(model, loss, found.model())
    engine = Engine(
        model,
        loss,
        recipe,
        schedule,
        group,
        moments=None if found is None else found.moments(),
        step=state.get("step", 0),
        updates=state.get("updates", 0),
    )
    audio = AudioInput.of(model.audio)
    loader = Loader(
        manifest,
        order,
        recipe.data,
        audio,
        model.text.tokenizer,
        group.rank,
        group.size,
        device=engine.device,
    )
    return Run(recipe, folder, manifest, group, order, loader, engine, model.text.tokenizer, schedule.steps)


def _keep_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer in the run's folder, whole or not at all."""
    draft = folder / f".{TOKENIZER}.writing"
    shutil.rmtree(draft, ignore_errors=True)
    tokenizer.save_pretrained(draft)
    draft.rename(folder / TOKENIZER)


def _next_batch(order: Order, taken: int) -> str:
    """The name of the global batch that comes after so many steps."""
    return batch_hash(order.batch(*divmod(taken, order.steps_per_epoch)).keys)


def _check_data(found: checkpoint.Checkpoint, order: Order) -> None:
    """``InputError`` where the build would go on with other samples than the run was about to meet."""
    if found.state.get("next") not in (None, _next_batch(order, found.step)):
        raise InputError(
            "the run was started on other data: its next batch is not in this build's order",
            file=found.folder,
            remedy="name the build that it was started on, or another --run to start afresh",
        )


def _newest(folder: Path, group: Group) -> checkpoint.Checkpoint | None:
    """The newest valid checkpoint, the same on every rank."""
    chosen: str | None = None
    complaints: list[str] = []
    if group.rank == 0:
        found, complaints = checkpoint.newest(folder / "checkpoints")
        chosen = None if found is None else found.folder.name
        for complaint in complaints if chosen else ():
            StatusLine("", 0).say(f"left out: {complaint}")
    chosen, complaints = group.gather_objects((chosen, complaints), "checkpoint")[0]
    if chosen is None and complaints:
        raise InputError(
            f"every checkpoint of the run is damaged; the newest: {complaints[0]}",
            file=folder / "checkpoints",
            remedy="remove the folder checkpoints to start from the beginning",
        )
    return None if chosen is None else checkpoint.load(folder / "checkpoints" / chosen)


def _batches(run: Run) -> Iterator[tuple[int, Batch, float]]:
    """Epoch, batch and seconds waited for it, from the step where the run stands to its end."""
    while run.engine.steps_taken < run.steps:
        epoch, step = divmod(run.engine.steps_taken, run.order.steps_per_epoch)
        batches = run.loader.epoch(epoch, step)
        for _ in range(step, run.order.steps_per_epoch):
            asked = time.monotonic()
            batch = next(batches)
            yield epoch, batch, time.monotonic() - asked
            if run.engine.steps_taken >= run.steps:
                return


def _step(run: Run, epoch: int, batch: Batch, waited: float) -> dict[str, Any]:
    """Take a step and describe it; where it is not finite, stop or go on as the recipe says."""
    # of the rank that waited longest: the others wait for it inside the step
    waited = float(run.group.max(torch.tensor(waited, dtype=torch.float64), "waiting"))
    step, began = run.engine.steps_taken, time.monotonic()
    received, moved = run.group.bytes_received, run.group.engine_bytes_received
    rate = run.engine.schedule.rate(step)
    result = run.engine.step(batch)
    seconds = time.monotonic() - began + waited
    place = step % run.order.steps_per_epoch
    keys = run.order.batch(epoch, place).keys if run.first else []
    if not (result.applied and math.isfinite(result.loss)):
        _not_finite(run, step, keys, result)
    record = {
        "step": step,
        "epoch": epoch,
        "loss": result.loss,
        "lr": rate,
        "grad_norm": result.grad_norm,
        "batch": batch_hash(keys),
        "applied": result.applied,
        "clips_per_s": len(keys) / seconds,
        "data_wait": waited / seconds,
        "loss_bytes_received": run.group.bytes_received - received,
        "engine_bytes_received": run.group.engine_bytes_received - moved,
        "damaged": _damaged(run),
        "kin_met": run.order.count_kin_repeats(epoch, place),
    }
    if run.recipe.log.health and step % run.recipe.log.health == 0:
        record |= measure_health(run.engine.model.head, run.engine.system.loss, *result.sides, run.group)
    return record


def _damaged(run: Run) -> int:
    """Samples that all ranks left out since the last start; without leave to do so the first one ends the run."""
    if not run.recipe.data.max_failures:
        return 0
    return int(run.group.sum(torch.tensor([len(run.loader.failures)]), "damaged samples"))


def _not_finite(run: Run, step: int, keys: list[str], result: StepResult) -> None:
    if run.first:
        with (run.folder / NOT_FINITE).open("a", encoding="utf-8") as file:
            line = {"step": step, "loss": str(result.loss), "grad_norm": str(result.grad_norm), "keys": keys}
            file.write(json.dumps(line) + "\n")
    if run.recipe.engine.nonfinite == "stop":
        raise InputError(
            f"loss or gradient of step {step} is not finite; the weights are those before it",
            file=run.folder / NOT_FINITE,
            value=(result.loss, result.grad_norm),
            remedy="look at the clips there; lower optimizer.lr, clip gradients, or set engine.nonfinite: skip",
        )


def _due(run: Run, every: int) -> bool:
    """Whether what is done every so many steps (0: at each epoch's end) is due; always at the run's end."""
    taken = run.engine.steps_taken
    return taken >= run.steps or taken % (every or run.order.steps_per_epoch) == 0


def _validate(run: Run, progress: StatusLine) -> dict[str, float] | None:
    settings = run.recipe.validation
    if settings.split is None:
        return None
    result = evaluate(
        run.engine.encoders(),
        run.manifest,
        settings.split,
        run.recipe.data,
        run.loader.audio,
        run.tokenizer,
        run.group,
        settings.batch,
        first=settings.first,
    )
    figures = flatten({name: result[name] for name in DIRECTIONS})
    progress.say(f"step {run.engine.steps_taken}: {settings.split} {settings.metric} {figures[settings.metric]:.4f}")
    return figures


def _save(run: Run, validation: dict[str, float] | None) -> dict[str, Any]:
    """Write a checkpoint; every rank takes part, the first one writes."""
    parameters, moments = run.engine.parameters(), run.engine.optimizer_moments()
    _refuse_broken(run, parameters)
    taken = run.engine.steps_taken
    state: dict[str, Any] = {
        "epoch": taken // run.order.steps_per_epoch,
        "next": _next_batch(run.order, taken),
        "updates": run.engine.updates,
        "recipe": resolved.digest(run.recipe),
        "plan": run.manifest.dataset.get("plan"),
        "world": run.group.size,
        "torch": torch.__version__,
        "validation": validation or {},
    }
    if run.first:
        checkpoint.save(run.checkpoints, taken, parameters, moments, state)
        checkpoint.prune(run.checkpoints, run.recipe.checkpoint, run.recipe.validation.metric)
    run.group.barrier("checkpoint")
    return {"step": taken, **state}


def _refuse_broken(run: Run, parameters: dict[str, torch.Tensor]) -> None:
    """``InputError`` on every rank where a weight is not finite: no checkpoint may hold what cannot be gone on from."""
    names = run.engine.system.names() if run.first else ()
    broken = [name for name in names if not parameters[name].isfinite().all()]
    broken = run.group.gather_objects(broken, "weights")[0]
    if broken:
        raise InputError(
            f"{len(broken)} parameters are not finite after {run.engine.steps_taken} steps; no checkpoint is written",
            file=run.folder,
            value=", ".join(broken[:3]),
            remedy="the last checkpoint is well; lower optimizer.lr or raise optimizer.eps, in another --run",
        )


def _export(run: Run) -> tuple[Path, dict[str, float]]:
    """The best checkpoint by validation, or else the last weights, as a plain folder; and its figures."""
    target, figures = run.folder / EXPORT, {}
    if run.first:
        chosen = checkpoint.best(run.checkpoints, run.recipe.validation.metric) or checkpoint.find(run.folder)
        exported = checkpoint.load(chosen)
        export(exported, target)
        figures = exported.state.get("validation", {})
    return target, run.group.gather_objects(figures, "export")[0]


def _headline(run: Run) -> str:
    trained = sum(math.prod(p.ds_shape if hasattr(p, "ds_shape") else p.shape) for p in run.engine.trained())
    return (
        f"{run.order.draws_per_epoch} clips an epoch, {run.order.steps_per_epoch} steps of "
        f"{run.recipe.data.batch_size}, {run.group.size} ranks, {trained / 1e6:.1f} M trained parameters, "
        f"steps {run.engine.steps_taken} to {run.steps}"
        + (": all of them warm-up, the rate never falls" if run.engine.schedule.warmup >= run.steps - 1 > 1 else "")
    )
