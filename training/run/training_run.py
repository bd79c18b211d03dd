"""A run that was started or resumed: its model, data, optimizer and folder."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config import resolved
from training.config.sections import Recipe
from training.data.loader import BatchLoader
from training.data.sampling.order import Order, batch_name
from training.engine import checkpoint
from training.engine.distributed import Group
from training.engine.schedule import make_schedule
from training.engine.step import Engine
from training.models.build import TOKENIZER, with_tokenizer
from training.models.encoders.naming import encoder_name
from training.run.frozen import store_frozen
from training.run.initial import initialise, open_origin
from training.run.lock import RunPlace
from training.run.progress import StatusLine
from training.tasks import task_module
from training.tasks.base import RunTask


@dataclass
class TrainingRun:
    """Everything that a run needs once it was started.

    Attributes:
        recipe: what is trained.
        place: the folder of the run.
        manifest: the source of the data, such as `sharding.shards.manifest.Manifest` of a build.
        group: the ranks.
        order: the order of the training samples.
        loader: this rank's training batches.
        engine: trains the task.
        task: what is trained.
        digest: the digest of the recipe, as checkpoints keep it.
        steps: length of the whole run in steps.
        frozen: size and SHA-256 of the file of the parameters that are not trained; None where all are trained.
        logs_published: when the logs were last uploaded to an object store, by the monotonic clock.
    """

    recipe: Recipe
    place: RunPlace
    manifest: Any
    group: Group
    order: Order
    loader: BatchLoader
    engine: Engine
    task: RunTask
    digest: str
    steps: int
    frozen: dict[str, Any] | None = None
    logs_published: float = 0.0

    @property
    def is_first_rank(self) -> bool:
        """Whether this rank writes the files and prints."""
        return self.group.rank == 0

    @property
    def folder(self) -> Path:
        """The folder of the run on this machine."""
        return self.place.folder

    def trained_count(self) -> int:
        """How many numbers are trained."""
        # Under ZeRO stage 3 a parameter has its whole shape in ds_shape.
        return sum(math.prod(p.ds_shape if hasattr(p, "ds_shape") else p.shape) for p in self.engine.trained())

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def start_run(recipe: Recipe, manifest: Any, place: RunPlace, group: Group, trust_code: bool = False) -> TrainingRun:
    """Make the model, the optimizer and the loader, or restore them from the newest checkpoint.

    ``trust_code`` says whether to run the Python files of encoders that come with other models that the recipe names.
    """
    folder = place.folder
    found = newest_checkpoint(folder, group)
    digest = resolved.digest(recipe)  # before the tokenizer's folder stands in it, which may be moved
    if found is not None:
        checkpoint.check_recipe_digest(found, digest, folder / "recipe.yaml")
    origin = open_origin(recipe, trust_code) if found is None else None
    recipe = with_tokenizer(recipe, folder)
    task: RunTask = task_module(recipe).make_task(recipe, manifest, trust_code)
    group.barrier("model")  # all ranks have looked for a saved tokenizer before the first one saves it
    if group.rank == 0 and task.tokenizer is not None and not (folder / TOKENIZER).is_dir():
        _save_tokenizer(task.tokenizer, folder)
    order = Order(manifest.table, recipe.data, recipe.seed)
    schedule = make_schedule(recipe.optimizer, order.steps_per_epoch)
    state = {} if found is None else found.state
    if found is not None:
        _check_data(found, order)
        checkpoint.restore_named(task.tensors(), found.model())
    elif recipe.init_from is not None:
        for line in initialise(task, recipe.init_from, origin):
            StatusLine("", 0, quiet=group.rank > 0).say(line)
    encoders: dict[str, str] = {
        part: encoder_name(recipe, part, tower, task.tokenizer)
        for part, tower in task.towers().items()
        if part in recipe.data.stored
    }
    engine = Engine(
        task,
        recipe,
        schedule,
        group,
        moments=None if found is None else found.moments(),
        step=state.get("step", 0),
        updates=state.get("updates", 0),
    )
    if recipe.data.stored and place.remote is not None and group.size > 1 and recipe.data.stored_folder is None:
        remedy = "name one in data.stored_folder"
        raise InputError("data.stored needs a folder that every rank sees", value=place.name(), remedy=remedy)
    task.stored = store_frozen(task, engine, recipe, manifest, folder, group, encoders)
    loader = task.loader(manifest, order, recipe.data, group, engine.device)
    frozen = _frozen(engine, folder, found)
    run = TrainingRun(recipe, place, manifest, group, order, loader, engine, task, digest, schedule.steps, frozen)
    _publish_setup(run)
    return run


def _publish_setup(run: TrainingRun) -> None:
    """Upload what belongs to the run as a whole, where it is in an object store and its copy may become large enough.

    The copy holds two checkpoints: of each trained weight its value and two moments, in float32.
    """
    if run.place.remote is None or not run.is_first_rank:
        return
    checkpoint_bytes = 12 * run.trained_count()
    run.place.remote.require_room(2 * checkpoint_bytes + (run.frozen or {}).get("bytes", 0))
    run.place.remote.publish_setup()


def _frozen(engine: Engine, folder: Path, found: checkpoint.Checkpoint | None) -> dict[str, Any] | None:
    """Save the parameters that are not trained, if no checkpoint has them yet; what describes the file."""
    if found is not None and "frozen" in found.state:
        return found.state["frozen"]
    values = engine.frozen_parameters()
    described = checkpoint.save_frozen(folder, values) if engine.group.rank == 0 else None
    return engine.group.gather_objects(described, "frozen parameters")[0]


def newest_checkpoint(folder: Path, group: Group) -> checkpoint.Checkpoint | None:
    """The newest valid checkpoint of a run, the same on every rank; None if there is none yet."""
    chosen: str | None = None
    complaints: list[str] = []
    if group.rank == 0:
        found, complaints = checkpoint.newest(folder / "checkpoints")
        chosen = None if found is None else found.folder.name
        for complaint in complaints if chosen else ():
            StatusLine("", 0).say(f"skipped a checkpoint: {complaint}")
    chosen, complaints = group.gather_objects((chosen, complaints), "checkpoint")[0]
    if chosen is None and complaints:
        raise InputError(
            f"every checkpoint of the run is damaged; the newest: {complaints[0]}",
            file=folder / "checkpoints",
            remedy="remove the folder checkpoints to start from the beginning",
        )
    return None if chosen is None else checkpoint.load(folder / "checkpoints" / chosen)


def next_batch(order: Order, taken: int) -> str:
    """The name of the global batch that follows after ``taken`` steps."""
    return batch_name(order.batch(*divmod(taken, order.steps_per_epoch)).name_part)


def _check_data(found: checkpoint.Checkpoint, order: Order) -> None:
    """``InputError`` if the build would give the run another next batch than the one it was about to use."""
    if found.state.get("next") not in (None, next_batch(order, found.step)):
        raise InputError(
            "the run was started on other data: its next batch is not in this build's order",
            file=found.folder,
            remedy="name the build that it was started on, or another --run to start a new run",
        )


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer in the run's folder, whole or not at all."""
    draft = folder / f".{TOKENIZER}.writing"
    shutil.rmtree(draft, ignore_errors=True)
    tokenizer.save_pretrained(draft)
    draft.rename(folder / TOKENIZER)
