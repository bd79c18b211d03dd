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
import logging
import sys
import threading
from dataclasses import dataclass
from typing import Any

from ray_jobs.connection import add_nodes, connect, refuse_relative, resources_of, selector
from ray_jobs.metrics import TRAINING, Gauges, of_step, run_label
from sharding.commands.arguments import absolute
from sharding.common import commandline
from sharding.common.commandline import Command
from sharding.common.errors import InputError
from sharding.common.processes import run_program
from sharding.common.storage import Storage

LOOK_S = 10.0  # between two looks at what the cluster has
RESULT = "result.json"  # in the run's folder: the first rank's result, for the driver


@dataclass(frozen=True)
class TrainJob:
    """What the driver gives to every rank.

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
    parser.add_argument("--workers", type=int, default=1, help="ranks; with --min-workers, the highest number of them")
    parser.add_argument(
        "--min-workers", type=int, help="continue with as few ranks as this when nodes are lost, and grow again"
    )
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after which the run is given up")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs of each rank, its loader's processes included")
    parser.add_argument(
        "--gpus", type=int, choices=(0, 1), help="GPUs of each rank; by default 1 if the cluster has GPUs now, else 0"
    )
    add_nodes(parser)
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one here")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe
    from training.config.resolved import to_tree

    fewest = args.workers if args.min_workers is None else args.min_workers
    if not 1 <= fewest <= args.workers:
        raise InputError("--workers and --min-workers count from 1", value=(fewest, args.workers))
    if args.cpus <= 0:
        raise InputError("a rank needs CPUs", value=args.cpus, remedy="--cpus above 0")
    refuse_relative("--run", args.run)
    recipe = to_tree(load_recipe(args.recipe, args.set))  # a wrong recipe fails here, before any rank starts
    job = TrainJob(recipe, args.shards and absolute(args.shards), absolute(args.run), trust_code=args.trust_code)
    _train(job, args, fewest)
    return dict(job.folder.read_json(RESULT))


def _train(job: TrainJob, args: argparse.Namespace, fewest: int) -> None:
    connect(args.address, args.workers)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from ray_jobs.rank_failures import RankFailures, explained
    from ray_jobs.rank_network import RankNetwork

    available = resources_of(args.nodes)
    gpus = available.get("GPU", 0) > 0 if args.gpus is None else args.gpus == 1
    trainer = TorchTrainer(
        train_rank,
        train_loop_config={"job": job},
        torch_config=RankNetwork(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=args.workers if fewest == args.workers else (fewest, args.workers),
            use_gpu=gpus,
            resources_per_worker={"CPU": args.cpus} | ({"GPU": 1} if gpus else {}),
            label_selector=selector(args.nodes),
        ),
        run_config=RunConfig(
            name=job.run.rpartition("/")[2],
            storage_path=job.run.rpartition("/")[0] or "/",
            failure_config=FailureConfig(max_failures=args.max_failures),
            callbacks=[RankFailures(args.max_failures)],
            logging_config=LoggingConfig(log_level="WARNING"),  # the run has its own lines about progress
        ),
    )
    wanted = {"CPU": fewest * args.cpus} | ({"GPU": float(fewest)} if gpus else {})
    ended = threading.Event()
    watch = threading.Thread(target=_watch_nodes, args=(ended, args.nodes, fewest, wanted), daemon=True)
    watch.start()
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise explained(error, job.run) from error
    finally:
        ended.set()


def _watch_nodes(ended: threading.Event, nodes: str | None, ranks: int, wanted: dict[str, float]) -> None:
    """Say whenever training waits for nodes, because the cluster cannot hold the ranks that were asked for."""
    said = None
    while True:
        try:
            says = shortage(resources_of(nodes), ranks, wanted)
        except Exception:  # the head is gone, and Ray ends this driver
            return
        if says is not None and says != said:
            print(f"  {says}", file=sys.stderr, flush=True)
        said = says
        if ended.wait(LOOK_S):
            return


def shortage(available: dict[str, float], ranks: int, wanted: dict[str, float]) -> str | None:
    """What the cluster lacks for so many ranks; None if nothing."""
    lacking = [name for name, count in wanted.items() if available.get(name, 0) < count]
    if not lacking:
        return None
    needs = ", ".join(f"{wanted[name]:g} {name}s" for name in lacking)
    there = ", ".join(f"{available.get(name, 0):g}" for name in lacking)
    return (
        f"waiting for nodes: {ranks} ranks need {needs}, and the cluster has {there}; "
        "fewer --workers need less, and --min-workers begins with fewer"
    )


def train_rank(config: dict[str, TrainJob]) -> None:
    """Train as one of Ray Train's workers; Ray Train has made the process group."""
    import ray.train

    from training.config.loading import parse_recipe
    from training.engine.launch import ranks
    from training.run.loop import fit
    from training.tasks import task_module

    logging.getLogger().setLevel(logging.WARNING)  # Ray Train lets every library's messages through
    job = config["job"]

    def report(state: dict[str, Any]) -> None:
        ray.train.report({"step": state["step"]})

    gauges = Gauges(TRAINING, run_label(job.run))

    def watch(record: dict[str, Any]) -> None:
        gauges.set(of_step(record))

    with ranks() as group:
        recipe = parse_recipe(job.recipe)
        source = task_module(recipe).open_source(recipe, job.shards)
        result = fit(recipe, source, job.run, group, report, job.trust_code, watch)
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
