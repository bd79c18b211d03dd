"""Training as a Ray job: Ray Train starts the ranks, and starts them again where one dies.

    ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/train.py RECIPE
        --shards OUT --run DIR --workers 8

The options are those of ``earshot fit``.  The run's folder must lie on storage that every node sees, such as
``s3://BUCKET/RUN``.  Its checkpoints do not depend on the number of ranks, so a restart continues from the newest one
with as many ranks as there are.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

from ray_jobs.cluster.connection import connect, refuse_relative
from ray_jobs.cluster.metrics import run_label, watching
from ray_jobs.cluster.ranks import Ranks, add_ranks, run_on_ranks
from sharding.commands.arguments import absolute
from sharding.common import commandline
from sharding.common.commandline import Command
from sharding.common.processes import run_program
from sharding.common.storage import Storage

RESULT = "result.json"  # in the run's folder: the first rank's result, for the driver


@dataclass(frozen=True)
class TrainJob:
    """The data that the driver sends to every rank.

    Attributes:
        recipe: as resolved; its file need not lie on every node.
        shards: the build's address; None: the task reads no shards.
        run: the run's folder, or its address.
        trust_code: whether to run the code that comes with teachers and with ``init_from``.
    """

    recipe: dict[str, Any]
    shards: str | None
    run: str
    trust_code: bool

    @property
    def folder(self) -> Storage:
        """The run's folder, for small files between the ranks and the driver."""
        return Storage(self.run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from training.commands import fit

    fit.add_arguments(parser)
    parser.description = "Train over a Ray cluster, with the options of `earshot fit` and the number of ranks."
    add_ranks(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe
    from training.config.resolved import to_tree

    ranks = Ranks.of(args)
    refuse_relative("--run", args.run)
    recipe = to_tree(load_recipe(args.recipe, args.set))  # a wrong recipe fails here, before any rank starts
    job = TrainJob(recipe, args.shards and absolute(args.shards), absolute(args.run), trust_code=args.trust_code)
    connect(args.address, args.workers)
    run_on_ranks(train, job, job.run, ranks)
    return dict(job.folder.read_json(RESULT))


def train(job: TrainJob, group: Any) -> None:
    """Train with the other ranks; the first one writes the result."""
    import ray.train

    from training.config.loading import parse_recipe
    from training.run.loop import fit
    from training.tasks import task_module

    def report(state: dict[str, Any]) -> None:
        ray.train.report({"step": state["step"]})

    recipe = parse_recipe(job.recipe)
    source = task_module(recipe).open_source(recipe, job.shards)
    result = fit(recipe, source, job.run, group, report, job.trust_code, watching(run_label(job.run)))
    if group.rank == 0:
        job.folder.write(RESULT, json.dumps(result).encode())


def show(result: dict[str, Any]) -> str:
    from training.commands import fit

    return fit.show(result)


def main() -> int:
    commands = {"train": Command("Commands", "ray_jobs.train", "train over a Ray cluster")}
    return commandline.main("ray_jobs/train.py", __doc__ or "", commands, ["train", *sys.argv[1:]])


if __name__ == "__main__":
    run_program(main)
