"""``fit``: train the model that a recipe describes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.processes import leave
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.engine.distributed import Group

RECIPE_HELP = "a recipe's YAML file, or the name of one that comes with Earshot (demo, dual_encoder, ...)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train the model that a recipe describes. The same command goes on from the newest checkpoint. "
        "For several ranks: torchrun --nproc_per_node N -m -- training fit ..., the deepspeed launcher, or "
        "ray_jobs/train.py."
    )
    parser.add_argument("recipe", help=RECIPE_HELP)
    parser.add_argument("--shards", required=True, help="the build: a folder or a URL")
    parser.add_argument("--run", required=True, type=run_folder, help="the run's folder, which every rank sees")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a recipe's key, e.g. optimizer.lr=1e-4",
    )


def run_folder(text: str) -> Path:
    """The folder of ``--run``: in a file system, as checkpoints are renamed into their place."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no folder of a file system: name one that every rank sees")
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file: name a folder")
    return Path(text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    recipe = load_recipe(args.recipe, args.set)
    manifest = Manifest.open(args.shards)
    from training.engine.step import ranks
    from training.run.loop import fit

    with ranks() as group:
        result = fit(recipe, manifest, args.run, group)
    return only_first_rank(result, group)


def only_first_rank(result: dict[str, Any], group: Group) -> dict[str, Any]:
    """The result on the first rank; the others have nothing to add and end here."""
    if group.rank > 0:
        leave(0)
    return result


def show(result: dict[str, Any]) -> str:
    loss = "" if result["loss"] is None else f", loss {result['loss']:.4f}"
    lines = [f"{result['steps']} steps{loss}", f"model: {result['export']}"]
    lines += [
        f"{name} {value:.4f} (chance {result['validation'][_chance(name)]:.4f})"
        for name, value in result["validation"].items()
        if _chance(name) in result["validation"]
    ]
    return "\n".join(lines)


def _chance(name: str) -> str:
    direction, _, metric = name.partition("/")
    return f"{direction}/chance_{metric}"
