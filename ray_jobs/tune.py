"""Sweeps over keys of a recipe on Ray Tune: every trial is a run, and the best is chosen by the validation split alone.

    ray job submit --address http://HEAD:8265 --working-dir . -- python -m ray_jobs tune own_sounds --shards OUT
        --out FOLDER --over optimizer.lr=1e-4..1e-2 --over head.dim=256,384 --samples 4 --seeds 3

The trials follow from the options alone, so the same command continues an interrupted sweep, and one with more samples
or seeds adds to it.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ray_jobs.cluster.connection import add_nodes, connect, refuse_relative, resources_of, selector
from ray_jobs.cluster.ranks import telling_shortage
from sharding.commands.arguments import absolute
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.commands.arguments import add_recipe, add_shards, add_trust_code

if TYPE_CHECKING:
    from ray_jobs.sweeps import Sweep
    from training.config.sections import Recipe

Result = TypeVar("Result")

BEGUN = "sweep.json"  # in the sweep's folder: the recipe and the build that it was begun with
STORED = "stored"  # in the sweep's folder: vectors of frozen encoders, which its runs share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Try values of a recipe's keys on a Ray cluster, as many trials side by side as there is room for, and rank "
        "them by the validation split. Each trial is a run of one process, like that of `earshot fit`. A failed trial "
        "is named and loses no other; the same command continues an interrupted sweep."
    )
    add_recipe(parser)
    add_shards(parser, required=False)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="the folder for runs/<values>/seed-<seed>; every node must see it",
    )
    parser.add_argument(
        "--over",
        required=True,
        action="append",
        metavar="KEY=VALUES",
        help="A,B,C tries each value; LOW..HIGH draws --samples values, evenly in their logarithm (evenly where LOW is "
        "0). May be repeated, which tries every combination",
    )
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="how many values are drawn of each range")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="how many seeds each combination is tried with (default: 1)"
    )
    parser.add_argument(
        "--stop-early",
        action="store_true",
        help="end trials that are not among the best third after 10 or after 30 %% of their steps (ASHA)",
    )
    add_trust_code(parser, "the recipe's teachers and its init_from")
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after which a trial is given up")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs of each trial, its loader's processes included")
    parser.add_argument(
        "--gpus", type=float, help="GPUs of each trial, such as 0.5; by default 1 if the cluster has any now, else 0"
    )
    add_nodes(parser)
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one on this machine")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ray_jobs.sweeps import ranked

    if args.cpus <= 0 or (args.gpus or 0) < 0:
        raise InputError("a trial needs processor cores", value=(args.cpus, args.gpus), remedy="--cpus above 0")
    refuse_relative("--out", args.out)
    args.out, args.shards = absolute(args.out), args.shards and absolute(args.shards)
    sweep, split = _sweep(args)  # what is wrong is refused before Ray starts
    connect(args.address, show_workers=False)
    from ray_jobs.trials import run_trials

    has_gpus = resources_of(args.nodes).get("GPU", 0) > 0
    gpus = float(has_gpus) if args.gpus is None else args.gpus
    resources = {"CPU": args.cpus} | ({"GPU": gpus} if gpus else {})
    with telling_shortage(args.nodes, resources, "a trial needs", "--cpus and --gpus say what each trial gets"):
        failed = run_trials(sweep, resources, selector(args.nodes), args.max_failures)
    rows = ranked({trial: sweep.standing(trial, failed.get(trial, "")) for trial in sweep.trials})
    best = [*args.set, *rows[0]["changes"]] if rows[0]["complete"] else None
    found = {"recipe": args.recipe, "shards": args.shards, "out": args.out, "split": split, "metric": sweep.metric}
    return found | {"settings": rows, "best": best} | ({"exit": 1} if failed else {})


def _sweep(args: argparse.Namespace) -> tuple[Sweep, str]:
    """The sweep that the options describe, and the split on which its trials are validated.

    Raises:
        InputError: a trial's recipe is wrong, trials cannot be compared, or ``--out`` holds another sweep.
    """
    from ray_jobs.sweeps import Sweep, trials_of
    from training.config.loading import load_recipe
    from training.config.resolved import to_tree

    trials = trials_of(args.over, args.samples, args.seeds)

    def load(changes: Sequence[str]) -> Recipe:
        return load_recipe(args.recipe, [*args.set, *changes])

    loaded = {changes: _blaming(load, changes) for changes in dict.fromkeys(one.changes for one in trials)}
    recipes = [replace(loaded[one.changes], seed=one.seed) for one in trials]
    checked: dict[str, Recipe] = {}  # most trials differ in nothing that is checked against the build
    plan = None
    for one, recipe in zip(trials, recipes, strict=True):
        if (name := _against_build(recipe)) not in checked:
            checked[name], plan = _blaming(lambda changes: _checked(load(changes), args), one.changes)
    compared = {(one.validation.split, one.validation.metric) for one in checked.values()}
    if len(compared) > 1:
        what = "trials can only be compared on one split by one metric"
        raise InputError(what, value="; ".join(f"{split} {metric}" for split, metric in sorted(compared, key=str)))
    ((split, metric),) = compared
    whole = [(recipe, checked[_against_build(recipe)]) for recipe in recipes]
    trees = tuple(to_tree(replace(recipe, data=full.data, validation=full.validation)) for recipe, full in whole)
    _begin(args, plan)
    return Sweep(trials, trees, args.shards, args.out, metric, args.stop_early, args.trust_code), str(split)


def _blaming(check: Callable[[Sequence[str]], Result], changes: Sequence[str]) -> Result:
    """Call ``check(changes)``; its ``InputError`` then names the values of ``--over`` that caused it."""
    try:
        return check(changes)
    except InputError as error:
        if _refusal(check, ()) == error.what:  # it is wrong without them too
            raise
        alone = [change for change in changes if _refusal(check, [change]) == error.what]
        blamed = " ".join(f"--over {change}" for change in alone or changes)
        is_of_recipe = error.file is None or error.row is not None or str(error.file).startswith("--set ")
        what = error.what if is_of_recipe else f"{error.file}: {error.what}"
        remedy = error.remedy or "take this value out of --over"
        raise InputError(what, file=blamed, value=error.value, remedy=remedy) from error


def _refusal(check: Callable[[Sequence[str]], Any], changes: Sequence[str]) -> str | None:
    """What is wrong with these changes; None: nothing."""
    try:
        check(changes)
    except InputError as error:
        return error.what
    return None


def _against_build(recipe: Recipe) -> str:
    """A key for the settings that are checked against the build; equal keys need no second check."""
    return repr((recipe.task, recipe.data, recipe.validation, recipe.checkpoint))


def _checked(recipe: Recipe, args: argparse.Namespace) -> tuple[Recipe, Any]:
    """A trial's recipe, with the build's splits in place of ``*`` and a place for stored vectors; the build's plan."""
    from training.run.checks import check_recipe, is_for_tests, with_found_splits
    from training.tasks import task_module

    source = task_module(recipe).open_source(recipe, args.shards)
    found, _ = with_found_splits(recipe, source.table)
    check_recipe(found, source)
    split = found.validation.split
    if split is None:
        remedy = "name a held-out split: --set validation.split=DATASET/SPLIT"
        raise InputError("trials are compared by validation, and the recipe has none", value=args.recipe, remedy=remedy)
    if is_for_tests(split):
        what = "trials would be chosen by a split for tests, whose figures would then be too good"
        remedy = "name another held-out split as validation.split; `earshot build --split-by group` draws some"
        raise InputError(what, value=split, remedy=remedy)
    if not found.checkpoint.keep_best:
        raise InputError("a trial must keep its best checkpoint", remedy="--set checkpoint.keep_best=1")
    if found.data.stored and found.data.stored_folder is None and "://" not in args.out:
        found = replace(found, data=replace(found.data, stored_folder=f"{args.out}/{STORED}"))
    return found, source.dataset.get("plan")


def _begin(args: argparse.Namespace, plan: Any) -> None:
    """Write down the recipe and the build of a sweep; ``InputError`` if its folder holds another sweep."""
    from training.config.loading import load_recipe, parse_recipe
    from training.config.resolved import differences, to_tree

    base, folder = load_recipe(args.recipe, args.set), Storage(args.out)
    if folder.exists(BEGUN):
        former = folder.read_json(BEGUN)
        changed = differences(parse_recipe(former["recipe"], folder.name(BEGUN)), base)
        if former["plan"] != plan:
            changed.append(f"build: {former['plan']} -> {plan}")
        if changed:
            what = "the folder holds a sweep of another recipe or build: " + "; ".join(changed[:5])
            raise InputError(what, file=folder.name(BEGUN), remedy="name another --out")
    folder.write(BEGUN, json.dumps({"recipe": to_tree(base), "plan": plan}).encode())


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['split']} {result['metric']}, the best validation of each run: mean and range over the seeds"]
    for row in result["settings"]:
        seeds = len(row["runs"])
        mean = "       -" if row["mean"] is None else f"{row['mean']:8.4f}"
        spread = f"  {row['least']:.4f}..{row['most']:.4f}" if seeds > 1 and row["mean"] is not None else ""
        states = Counter(run["state"] for run in row["runs"] if run["state"] != "finished")
        note = "".join(f"  ({count} of {seeds} {state})" for state, count in states.items())
        lines.append(f"{mean}{spread}  {' '.join(row['changes'])}{note}")
    failed = [(row, run) for row in result["settings"] for run in row["runs"] if run["why"]]
    if failed:
        lines += ["", "Trials that failed; the same command tries them again:"]
        lines += [f"  - {' '.join(row['changes'])}, seed {run['seed']}: {run['why']}" for row, run in failed]
    if result["best"] is None:
        return "\n".join([*lines, "", "No setting has all its seeds, so none is called the best."])
    words = ["earshot", "fit", result["recipe"], *(word for change in result["best"] for word in ("--set", change))]
    words += ["--shards", result["shards"]] if result["shards"] else []
    lines += ["", f"The best, by {result['split']} alone; evaluate it on a split for tests once, at the end:"]
    lines += [f"  {result['out']}/{run['folder']}" for run in result["settings"][0]["runs"]]
    return "\n".join([*lines, "To train it again:", f"  {shlex.join(words)} --run RUN"])
