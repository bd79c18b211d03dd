"""``fit``: train the model that a recipe describes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sharding.common.addresses import is_address
from sharding.common.processes import leave
from sharding.common.sizes import quantity
from training.commands.arguments import add_recipe, add_shards, add_trust_code, file_in_the_way

if TYPE_CHECKING:  # torch takes seconds to import, and --help does without it
    from training.engine.distributed import Group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train the model that a recipe describes. Running the same command again resumes from the newest "
        "checkpoint. To train on several ranks, run torchrun --nproc_per_node N -m -- training fit ..., the "
        "deepspeed launcher, or ray_jobs/train.py."
    )
    add_recipe(parser)
    add_shards(parser, required=False)
    parser.add_argument(
        "--run",
        required=True,
        metavar="RUN",
        type=run_folder,
        help="the folder of the run, which every rank must see, or s3://BUCKET/RUN; it receives the log, the "
        "checkpoints and the export",
    )
    add_trust_code(parser, "the recipe's teachers and its init_from")


def run_folder(text: str) -> str:
    """The folder of ``--run``, or its address."""
    found = None if is_address(text) else file_in_the_way(text)
    if found is not None:
        raise argparse.ArgumentTypeError(f"{found} is a file: name a folder")
    return text


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe
    from training.engine.launch import ranks
    from training.run.loop import fit
    from training.tasks import task_module

    recipe = load_recipe(args.recipe, args.set)
    manifest = task_module(recipe).open_source(recipe, args.shards)
    with ranks() as group:
        result = fit(recipe, manifest, args.run, group, trust_code=args.trust_code)
    return only_first_rank(result, group)


def only_first_rank(result: dict[str, Any], group: Group) -> dict[str, Any]:
    """The result on the first rank; every other rank prints nothing and ends here."""
    if group.rank > 0:
        leave(0)
    return result


def show(result: dict[str, Any]) -> str:
    loss = "" if result["loss"] is None else f", loss {result['loss']:.4f}"
    skipped = f", {result['skipped']} of them skipped because they were not finite" if result["skipped"] else ""
    lines = [f"{quantity(result['steps'], 'step')}{skipped}{loss}", f"model: {result['export']}"]
    lines += [
        f"{name} {value:.4f} (chance {result['validation'][_chance(name)]:.4f})"
        for name, value in result["validation"].items()
        if _chance(name) in result["validation"]
    ]
    return "\n".join(lines)


def _chance(name: str) -> str:
    """The name of a figure's value by chance: ``text_to_audio/R@1`` to ``text_to_audio/chance_R@1``."""
    direction, _, metric = name.partition("/")
    return f"{direction}/chance_{metric}"
