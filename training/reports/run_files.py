"""What the folder of a run says about it, finished or not, on this machine or in an object store."""

from __future__ import annotations

import fcntl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.engine.remote import CONFIG, EXPORT, complete_steps
from training.engine.sealed import unsealed
from training.run.lock import LOCK
from training.run.log import METRICS, NOT_FINITE, STOPPED_EARLY, json_lines, records_of
from training.run.starts import read_starts

RECIPE = "recipe.yaml"
SILENT_S = 600.0  # without a step, after which a run in an object store counts as ended


@dataclass(frozen=True)
class RunFiles:
    """The files of a run.

    Attributes:
        place: its folder or address.
        recipe: the resolved recipe, as it stands in the file.
        tree: the same as plain values.
        records: the lines of ``metrics.jsonl``.
        events: the lines of ``starts.jsonl``.
        not_finite: the steps whose loss or gradient was not finite.
        checkpoints: names of the checkpoints that are kept.
        export: ``config.json`` of the export; None if there is none.
        is_held: whether a process trains in the folder now.
        is_stopped_early: whether a sweep has ended the run.
    """

    place: str
    recipe: str
    tree: dict[str, Any]
    records: list[dict[str, Any]]
    events: list[dict[str, Any]]
    not_finite: list[int]
    checkpoints: list[str]
    export: dict[str, Any] | None
    is_held: bool
    is_stopped_early: bool

    @staticmethod
    def open(place: str | Path) -> RunFiles:
        """Read a run.

        Raises:
            InputError: no run is there, or its recipe cannot be read.
        """
        storage = Storage(place)
        if not storage.exists(RECIPE):
            what = f"no run is here: there is no {RECIPE}"
            raise InputError(what, file=place, remedy="name the folder that `fit` was given as --run")
        recipe = storage.read(RECIPE).decode("utf-8", "replace")
        try:
            tree = yaml.safe_load(recipe)
        except yaml.YAMLError as error:
            raise InputError("the recipe cannot be read", file=storage.name(RECIPE)) from error
        records = records_of(storage.read(METRICS)) if storage.exists(METRICS) else []
        refused = json_lines(storage.read(NOT_FINITE)) if storage.exists(NOT_FINITE) else []
        return RunFiles(
            storage.name("").rstrip("/"),
            recipe,
            tree if isinstance(tree, dict) else {},
            records,
            read_starts(storage),
            [each["step"] for each in refused if isinstance(each.get("step"), int)],
            complete_steps(storage),
            _export(storage),
            _is_held(storage, records),
            storage.exists(STOPPED_EARLY),
        )


def _export(storage: Storage) -> dict[str, Any] | None:
    name = f"{EXPORT}/{CONFIG}"
    if not storage.exists(name):
        return None
    try:
        return unsealed(storage.read(name).decode())
    except ValueError as error:
        remedy = "run the training command again, which exports the finished run anew"
        raise InputError(f"the export is damaged: {error}", file=storage.name(name), remedy=remedy) from error


def _is_held(storage: Storage, records: list[dict[str, Any]]) -> bool:
    """Whether a process trains here; in an object store, whether it took a step in the last ten minutes."""
    if storage.local is None:
        last = records[-1].get("time") if records else None
        return isinstance(last, int | float) and time.time() - last < SILENT_S
    lock = Path(storage.local) / LOCK
    if not lock.is_file():
        return False
    try:
        with lock.open("rb") as file:  # a shared lock, given back at once; a trainer that comes meanwhile waits
            fcntl.lockf(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
