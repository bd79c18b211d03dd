"""``reproduce``: a table of a paper as one command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity, show_hours
from training.commands.fit import only_first_rank

if TYPE_CHECKING:
    from training.reproduce.carrying_out import Work

SMALL = "Small scale: small random encoders and few steps. These figures say nothing about the methods."
ON_TOWERS = "Small scale: heads on the named towers, which are frozen, and few steps. Large models may rank otherwise."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from training.reproduce.papers import PLANS

    parser.description = (
        "Train what a table of a paper takes, measure it, and show our figures beside the published ones. What is "
        "finished is not done again: if it is killed, the same command continues. On several GPUs, start it with "
        "torchrun. --dry-run lists the runs, their hours, and what they need that is not here."
    )
    parser.add_argument("plan", choices=sorted(PLANS), metavar="PLAN", help="one of " + ", ".join(sorted(PLANS)))
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder for runs and scores")
    parser.add_argument("--shards", metavar="OUT", help="the build; only --dry-run works without one")
    parser.add_argument(
        "--relevance", type=Path, metavar="CSV", help="DCASE 2025's metadata_eval.csv, for the improved captions"
    )
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="DIR",
        help="a folder with an image of each clip, for retrieval between sounds and images",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="how many seeds each run is trained with (default: 3)"
    )
    parser.add_argument(
        "--scale",
        choices=("full", "small"),
        default="full",
        help="small: the same plan with small random encoders and few steps, which proves that all of it works",
    )
    parser.add_argument(
        "--towers",
        nargs=2,
        metavar=("AUDIO", "TEXT"),
        help="with --scale small: frozen encoders with real weights in place of the random ones, of Whisper's and of "
        "BERT's kind, as folders or names (openai/whisper-tiny.en sentence-transformers/all-MiniLM-L6-v2)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="how many steps a run takes with --scale small (default: 20; 200 with --towers)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="also draw the curves of a plan that has some (aurola-scaling)"
    )
    parser.add_argument("--dry-run", action="store_true", help="run nothing; show what would be done")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of every recipe; may be repeated"
    )


def refuse_store(out: Path) -> None:
    """InputError where ``out`` names an object store."""
    if ":/" in str(out):  # a path has lost the second slash
        raise InputError("a plan writes its runs into a local folder", value=str(out), remedy="name a folder for --out")


def work_of(args: argparse.Namespace) -> Work:
    """The plan and where it goes, as the options say."""
    from training.reproduce.carrying_out import Work
    from training.reproduce.papers import PLANS
    from training.reproduce.small import STEPS, TOWER_STEPS, Towers, check_towers

    refuse_store(args.out)
    _refuse_options(args)
    towers = None if args.towers is None else Towers(*args.towers)
    few = STEPS if towers is None else TOWER_STEPS
    steps = (args.steps or few) if args.scale == "small" else 0
    plan, shards = PLANS[args.plan](), args.shards or ""
    if args.plot is not None and not plan.curve:
        curved = ", ".join(name for name, make in PLANS.items() if make().curve)
        raise InputError("the plan has no curves to draw", value=args.plan, remedy=f"--plot is for {curved}")
    full = Work(plan, args.out, shards, args.seeds, 0, tuple(args.set), frames=args.frames)
    if towers is not None:
        check_towers(towers, plan, [full.recipe(name, 0, set()) for name in plan.runs])
    return replace(full, steps=steps, towers=towers)


def _refuse_options(args: argparse.Namespace) -> None:
    if args.seeds < 1 or (args.steps is not None and args.steps < 1):
        raise InputError("--seeds and --steps must be at least 1", value=(args.seeds, args.steps))
    if args.steps is not None and args.scale == "full":
        raise InputError("--steps is for --scale small", remedy="change the recipes with --set optimizer.steps=N")
    if args.towers is not None and args.scale == "full":
        raise InputError("--towers is for --scale small", remedy="choose encoders with --set audio=... --set text=...")
    if not (args.shards or args.dry_run):
        remedy = "give --shards OUT; `earshot demo-corpus DIR` and `earshot build` make a small one"
        raise InputError("a plan is trained on a build, and none is named", remedy=remedy)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.relevance import open_relevance
    from training.reproduce.carrying_out import carry_out, outline
    from training.reproduce.plotting import write_curves

    work = work_of(args)
    if args.dry_run:
        manifest = Manifest.open(args.shards) if args.shards else None
        table = None if manifest is None else manifest.table
        return outline(work, table, args.relevance is not None) | {"dry": True}
    table = None if args.relevance is None else open_relevance(args.relevance)
    with ranks() as group:
        manifest = Manifest.open(work.shards)
        told = outline(work, manifest.table, table is not None)
        result = told | carry_out(work, manifest, group, table) | {"dry": False, "scale": args.scale}
        result["towers"] = args.towers
        if args.plot is not None and group.rank == 0:
            write_curves(result["rows"], work.plan.curve, work.plan.axis, args.plot)
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    lines = [result["source"]]
    if result["dry"]:
        width = max(len(run["run"]) for run in result["runs"]) + 2
        for run in result["runs"]:
            done = f"  done: {len(run['done'])} of {quantity(result['seeds'], 'seed')}" if run["done"] else ""
            lines.append(
                f"  {run['run']:{width}}{run['recipe']:22}{run['pairs']:9} pairs an epoch"
                f"  {_gpu_time(run['hours'])} a seed{done}"
            )
        lines.append(f"{quantity(result['left'], 'run is', 'runs are')} left: {_gpu_time(result['hours'])}")
        lines.append(f"The estimate: {result['whence']}.")
    else:
        lines += _tests(result) if "cells" in result else _table(result)
        if result["scale"] == "small":
            lines += ["", ON_TOWERS if result["towers"] else SMALL]
    if failed := result.get("failed"):
        lines += ["", "Runs that are not done; the same command does them again:"]
        lines += [f"  - {run}: {why}" for run, why in failed.items()]
    if result["missing"]:
        lines += ["Missing:", *(f"  - {each}" for each in result["missing"])]
    lines += ["What differs from the paper:", *(f"  - {each}" for each in result["differences"])]
    return "\n".join(lines)


def _gpu_time(hours: Sequence[float]) -> str:
    """The least and the most hours of a GPU in words."""
    least, most = map(show_hours, hours)
    return f"{least} of a GPU" if least == most else f"{least} to {most} of a GPU"


def _table(result: dict[str, Any]) -> list[str]:
    rows = result["rows"]
    width = max(len(label) for label in rows) + 2
    columns = list(dict.fromkeys(name for row in rows.values() for name in row["published"]))
    if not result["relevance"]:
        columns = [name for name in columns if not name.startswith("text_to_audio_multiple ")]
    columns = columns or ["text_to_audio mAP@10", "text_to_audio R@1", "text_to_audio R@10"]
    lines = [f"{result['split']}; published, then ours with its 95 % interval and the range of the seeds"]
    for name in columns:
        task, measure = name.split(" ")
        lines += ["", f"{measure}, {'improved' if task.endswith('multiple') else 'original'} captions"]
        for label, row in rows.items():
            ours = row["ours"][task][measure]
            theirs = f"{row['published'][name]:8.2f}" if name in row["published"] else f"{'-':>8}"
            low, high = 100 * ours["low"], 100 * ours["high"]
            spread = f"  {100 * ours['least']:.2f}..{100 * ours['most']:.2f}" if row["ours"]["seeds"] > 1 else ""
            lines.append(f"  {label:{width}}{theirs}{100 * ours['mean']:9.2f} ({low:.2f}, {high:.2f}){spread}")
    return lines


def _tests(result: dict[str, Any]) -> list[str]:
    """A table of which each column is another test, a column after the other."""
    rows = result["cells"]
    width = max(len(label) for label in rows) + 2
    lines = [f"published, then ours in percent, with the range of {result['seeds']} seeds"]
    for column in dict.fromkeys(column for row in rows.values() for column in row):
        lines += ["", column]
        for label, row in rows.items():
            if column not in row:
                continue
            cell = row[column]
            theirs = f"{'-':>8}" if cell["published"] is None else f"{cell['published']:8.2f}"
            ours = f"not measured: {cell['skipped']}" if "skipped" in cell else _range(cell)
            lines.append(f"  {label:{width}}{theirs}  {ours}")
    return lines


def _range(cell: dict[str, Any]) -> str:
    return f"{cell['mean']:7.2f}  {cell['least']:.2f}..{cell['most']:.2f}"
