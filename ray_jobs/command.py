"""A command that uses a model, as a Ray job: it runs on a node of the cluster, with a GPU where the cluster has one.

    ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/command.py mine RUN
        --shards OUT --split wavcaps/train --out hard.parquet

The options are those of ``earshot mine`` and so on.  Tasks that a command hands out go to the whole cluster.  If the
job is stopped, or its node dies, submit the same job again: it continues as the command would.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.cluster.connection import add_nodes, connect, refuse_relative
from ray_jobs.cluster.metrics import run_label
from ray_jobs.cluster.runner import RayRunner
from sharding.common import commandline
from sharding.common.processes import run_program
from training import cli

NAMES = ("annotate", "clusters", "embed", "evaluate", "index", "mine", "rerank", "rewrite", "scores", "teach")
COMMANDS = {name: cli.COMMANDS[name] for name in NAMES}
# the model runs in the tasks that these commands hand out, not in the command
HANDS_OUT_GPUS = ("annotate", "index", "rewrite")


@dataclass(frozen=True)
class Elsewhere:
    """Runs a command in a worker of the cluster.

    Attributes:
        module: the module of the command.
        folder: the folder in which the job runs; relative paths begin there.
        gpus: how many GPUs the command itself takes, where the cluster has any.
    """

    module: str
    folder: str
    gpus: int

    def __call__(self, args: argparse.Namespace) -> dict[str, Any]:
        if Path(self.folder).is_dir():  # otherwise this is another node, where Ray has put the code into another folder
            os.chdir(self.folder)
        result: dict[str, Any] = importlib.import_module(self.module).run(args)
        return result


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add ``--address`` and ``--nodes``; commands that distribute work get the cluster as their runner."""
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one on this machine")
    add_nodes(parser)
    parser.set_defaults(make_runner=_runner)


def _runner(args: argparse.Namespace) -> RayRunner:
    return RayRunner(args.address, args.nodes, run_label(str(getattr(args, "out", ""))))


def carry_out(module: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Run a command on the cluster that its arguments name; its errors are raised here."""
    if getattr(args, "out", None) is not None:
        refuse_relative("--out", str(args.out))
    connect(args.address)  # shows what the workers print: the progress of the command
    gpus = 0 if args.command in HANDS_OUT_GPUS else 1
    (result,) = _runner(args).map(Elsewhere(module.__name__, str(Path.cwd()), gpus), [args])
    return result


def main(argv: Sequence[str], program: str = "ray_jobs/command.py", about: str = __doc__ or "") -> int:
    return commandline.main(program, about, COMMANDS, argv, add_cluster, carry_out)


if __name__ == "__main__":
    run_program(partial(main, sys.argv[1:]))
