"""Carrying out a plan: every run of every seed that is not finished, its scores, and the table.

A plan's folder has ``runs/<run>/seed-<seed>``, ``scores/<run>/seed-<seed>`` and, for systems of several runs,
``scores/<system>/seed-<seed>``; for a table of tests, ``tests/<run>/seed-<seed>/<test>.json``.  What is finished is
not done again, so a plan can be killed and continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.loading import load_recipe
from training.config.sections import DistillationSettings, InitSettings, Recipe
from training.data.sampling.mixture import splits_of
from training.engine.distributed import Group
from training.evaluation.scores.comparing import compare
from training.evaluation.scores.ensembles import write_blend
from training.evaluation.scores.files import ScoreFile, is_scores
from training.evaluation.scores.writing import ScoringSettings, write_scores
from training.models.hub import CONFIG, EXPORT, open_model
from training.reproduce import needs
from training.reproduce.measuring import measure, obstacle
from training.reproduce.plans import IMPROVED, Cell, Plan
from training.reproduce.small import Towers, on_towers, shrink
from training.run.loop import Report, fit
from training.run.progress import StatusLine

SPLIT = "clotho/evaluation"


@dataclass(frozen=True)
class Work:
    """How a plan is carried out.

    Attributes:
        plan: what is reproduced.
        folder: where everything goes.
        shards: the build.
        seeds: how many seeds each run has.
        steps: the steps of a run at the small scale; 0: the full scale.
        changes: changes of every recipe, as ``--set`` takes them.
        split: which is scored.
        frames: a folder with an image of each clip, for tests of retrieval between sounds and images.
        towers: real encoders for the small scale; None: small random ones.
    """

    plan: Plan
    folder: Path
    shards: str
    seeds: int
    steps: int
    changes: tuple[str, ...] = ()
    split: str = SPLIT
    frames: Path | None = None
    towers: Towers | None = None

    @property
    def tests(self) -> list[str]:
        """The splits on which the plan is tested."""
        return self.plan.splits or [self.split]

    def run(self, name: str, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / name / f"seed-{seed}"

    def scores(self, name: str, seed: int) -> Path:
        """The folder of the scores of a run or a system."""
        return self.folder / "scores" / name.replace("/", "-") / f"seed-{seed}"

    def is_done(self, name: str, seed: int) -> bool:
        """Whether a run is finished."""
        return (self.run(name, seed) / EXPORT / CONFIG).is_file()

    def is_scored(self, name: str, seed: int) -> bool:
        """Whether a run is finished, and its scores are."""
        return self.is_done(name, seed) and is_scores(self.scores(name, seed))

    def needs(self, name: str) -> tuple[str, ...]:
        """The runs that a run needs: it starts from their weights, or learns from them as teachers."""
        planned = self.plan.runs[name]
        return tuple(dict.fromkeys(each for each in (planned.start, *planned.teachers) if each))

    def left(self) -> list[tuple[str, int]]:
        """The runs that are not scored yet, each with its seed; a run comes after the runs that it needs."""
        every = [(name, seed) for seed in range(self.seeds) for name in self.plan.runs]
        return [each for each in every if not self.is_scored(*each)]

    def recipe(self, name: str, seed: int, there: set[str]) -> Recipe:
        """The recipe of a run; ``there`` are the splits of the build."""
        planned = self.plan.runs[name]
        recipe = replace(load_recipe(planned.recipe, [*planned.changes, *self.changes]), seed=seed)
        if self.steps:
            recipe = shrink(recipe, there, self.steps)
        if self.towers is not None:
            recipe = on_towers(recipe, self.towers, self.folder / "stored")
        if planned.start:
            parts = () if recipe.init_from is None else recipe.init_from.parts
            start = str(self.run(planned.start, seed) / EXPORT)
            recipe = replace(recipe, init_from=InitSettings(start, parts))
        if planned.teachers:
            folders = tuple(str(self.run(teacher, seed) / EXPORT) for teacher in planned.teachers)
            recipe = replace(recipe, distillation=DistillationSettings(folders))
        return recipe


def outline(work: Work, table: Any | None, relevance: bool = False) -> dict[str, Any]:
    """The runs of a plan, with their hours and what they need that is not here; nothing is run.

    Args:
        work: the plan.
        table: the manifest of the build; None: there is none yet.
        relevance: whether there is a relevance table, which the figures of the improved captions need.
    """
    there = set() if table is None else set(splits_of(table))
    runs: list[dict[str, Any]] = []
    missing: list[str] = []
    for name, planned in work.plan.runs.items():
        full = replace(work, steps=0, towers=None).recipe(name, 0, there)
        pairs = needs.pairs_of(full, table if table is not None and _has_all(full, there) else None)
        least, most = needs.hours(pairs, full.optimizer.epochs, bool(planned.teachers))
        done = [seed for seed in range(work.seeds) if work.is_done(name, seed)]
        runs.append({"run": name, "recipe": planned.recipe, "pairs": pairs, "hours": [least, most], "done": done})
        if not work.steps:
            missing += needs.missing_weights(full) + needs.missing_data(full, there, work.tests)
        elif work.towers is not None and there:
            missing += needs.missing_weights(work.recipe(name, 0, there))
    if not relevance and any(task == IMPROVED for system in work.plan.systems.values() for task, _ in system.published):
        missing.append(needs.RELEVANCE)
    left = sum(work.seeds - len(run["done"]) for run in runs)
    total = [sum(run["hours"][end] * (work.seeds - len(run["done"])) for run in runs) for end in (0, 1)]
    return {
        "source": work.plan.source,
        "runs": runs,
        "seeds": work.seeds,
        "left": left,
        "hours": total,
        "whence": needs.WHENCE,
        "missing": list(dict.fromkeys(missing)),
        "differences": list(work.plan.differences),
    }


def carry_out(
    work: Work, manifest: Any, group: Group, table: Mapping[str, Mapping[str, float]] | None
) -> dict[str, Any]:
    """Carry out the rest of a plan, and compare its systems.

    Args:
        work: the plan.
        manifest: the manifest of the build.
        group: the ranks, which train together.
        table: a relevance table for the improved captions; None: there is none.

    Raises:
        InputError: the build lacks a split.
    """
    if work.plan.rows:
        return _carry_out_tests(work, manifest, group, set(splits_of(manifest.table)))
    check_split(work, manifest)
    left = group.gather_objects(work.left(), "runs that are left")[0]
    for number, (name, seed) in enumerate(left):
        StatusLine("", 0, quiet=group.rank > 0).say(f"run {number + 1} of {len(left)}: {name}, seed {seed}")
        do_run(work, name, seed, manifest, group, table)
    return tabulate(work, group, table)


def check_split(work: Work, manifest: Any) -> None:
    """``InputError`` if the build lacks the split that is scored."""
    if work.split not in splits_of(manifest.table):
        raise InputError("the build has no evaluation split", file=work.shards, value=work.split)


def do_run(
    work: Work,
    name: str,
    seed: int,
    manifest: Any,
    group: Group,
    table: Mapping[str, Mapping[str, float]] | None,
    watch: Report | None = None,
) -> None:
    """Train and score one run of one seed, unless this is done; the runs that it needs must be finished.

    Args:
        work: the plan.
        name: the name of the run.
        seed: the seed of the run.
        manifest: the manifest of the build.
        group: the ranks, which train together.
        table: see `carry_out`.
        watch: see `training.run.loop.fit`.
    """
    if not work.is_done(name, seed):
        recipe = work.recipe(name, seed, set(splits_of(manifest.table)))
        fit(recipe, manifest, work.run(name, seed), group, watch=watch)
    if not is_scores(work.scores(name, seed)):
        settings = ScoringSettings(f"{name}, seed {seed}", work.split, relevance=table)
        write_scores(open_model(work.run(name, seed) / EXPORT), manifest, settings, str(work.scores(name, seed)), group)


def tabulate(work: Work, group: Group, table: Mapping[str, Mapping[str, float]] | None) -> dict[str, Any]:
    """The table of a plan: the systems of which every run of a seed is scored, each with the seeds of which this is so.

    Raises:
        InputError: there is no such system.
    """
    systems: dict[str, list[ScoreFile]] = {}
    for label, system in work.plan.systems.items():
        seeds = [seed for seed in range(work.seeds) if all(work.is_scored(name, seed) for name in system.runs)]
        if seeds:
            systems[label] = [_of_system(work, label, system.runs, seed, group) for seed in seeds]
    if not systems:
        raise InputError("no system of the plan is complete", file=str(work.folder))
    found = compare(systems, table)
    published = {label: work.plan.systems[label].published for label in systems}
    rows = {
        label: {
            "published": {f"{task} {measure}": value for (task, measure), value in figures.items()},
            "ours": found["systems"][label],
        }
        for label, figures in published.items()
    }
    return {"split": work.split, "rows": rows, "relevance": table is not None}


def _carry_out_tests(work: Work, manifest: Any, group: Group, there: set[str]) -> dict[str, Any]:
    """Train the runs whose data the build has, and fill in the cells that can be measured."""
    lacking: dict[str, str] = {}
    for name, planned in work.plan.runs.items():
        asked = [item.split for item in load_recipe(planned.recipe, [*planned.changes, *work.changes]).data.train]
        absent = [split for split in asked if not needs.has(there, split)]
        if planned.start in lacking:
            lacking[name] = lacking[planned.start]
        elif absent and (not work.steps or len(absent) == len(asked)):
            lacking[name] = f"{', '.join(absent)} to train on is not in the build"
    if len(lacking) == len(work.plan.runs):
        raise InputError(
            "the build has nothing that the plan trains on",
            file=work.shards,
            value=next(iter(lacking.values())),
            remedy="`earshot reproduce PLAN --dry-run` says which data it needs, and where they are published",
        )
    for seed in range(work.seeds):
        for name in work.plan.runs:
            if name not in lacking and not work.is_done(name, seed):
                fit(work.recipe(name, seed, there), manifest, work.run(name, seed), group)
    cells = {
        label: {column: _cell(work, cell, manifest, group, there, lacking) for column, cell in row.items()}
        for label, row in work.plan.rows.items()
    }
    return {"cells": cells}


def _cell(
    work: Work, cell: Cell, manifest: Any, group: Group, there: set[str], lacking: Mapping[str, str]
) -> dict[str, Any]:
    """The published figure of a cell beside the mean and the range of ours, in percent, or why there is none."""
    found: dict[str, Any] = {"published": cell.published}
    reason = lacking.get(cell.run) or obstacle(cell, there, work.frames, bool(work.steps))
    if reason:
        return found | {"skipped": reason}
    values = []
    for seed in range(work.seeds):
        export, store = work.run(cell.run, seed) / EXPORT, work.folder / "tests" / cell.run / f"seed-{seed}"
        value = measure(cell, export, manifest, group, work.frames, store)[cell.measure]
        if isinstance(value, str):
            return found | {"skipped": value}
        values.append(100 * value)
    return found | {"mean": sum(values) / len(values), "least": min(values), "most": max(values)}


def _has_all(recipe: Recipe, there: set[str]) -> bool:
    return all(needs.has(there, item.split) for item in recipe.data.train)


def _of_system(work: Work, label: str, runs: tuple[str, ...], seed: int, group: Group) -> ScoreFile:
    """The scores of one run, or of the mean of several."""
    if len(runs) == 1:
        return ScoreFile.open(work.scores(runs[0], seed))
    out = work.scores(label, seed)
    if group.rank == 0 and not is_scores(out):
        files = {name: ScoreFile.open(work.scores(name, seed)) for name in runs}
        write_blend(files, (1 / len(runs),) * len(runs), str(out))
    group.barrier("scores of an ensemble")
    return ScoreFile.open(out)
