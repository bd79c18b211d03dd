"""Evaluation as a Ray job: the options of ``earshot evaluate``, on a node of the cluster.

ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/evaluate.py CHECKPOINT
    --shards OUT --split clotho/evaluation --json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ray_jobs.connection import connect
from sharding.commands.arguments import absolute
from sharding.common import commandline
from sharding.common.addresses import is_address
from sharding.common.commandline import Command
from sharding.common.errors import InputError
from sharding.common.processes import run_program
from training.commands import evaluate

show = evaluate.show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    evaluate.add_arguments(parser)
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one here")


def run(args: argparse.Namespace) -> dict[str, Any]:
    connect(args.address)
    import ray

    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    if is_address(args.checkpoint) or Path(args.checkpoint).exists():  # else it may be a name on a hub
        args.checkpoint = absolute(args.checkpoint)  # the task runs in another folder
    args.shards = args.shards and absolute(args.shards)
    args.relevance = args.relevance and args.relevance.resolve()
    try:
        result: dict[str, Any] = ray.get(ray.remote(num_cpus=1, num_gpus=gpus)(evaluate.run).remote(args))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    return result


def main() -> int:
    commands = {"evaluate": Command("Commands", "ray_jobs.evaluate", "measure retrieval on a split, on a Ray cluster")}
    return commandline.main("ray_jobs/evaluate.py", __doc__ or "", commands, ["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    run_program(main)
