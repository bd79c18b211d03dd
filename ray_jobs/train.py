"""Training as a Ray job: Ray Train starts the ranks, and starts them again where one dies.

    ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/train.py RECIPE
        --shards OUT --run DIR --workers 8

The options are those of ``python -m training fit``.  The run's folder lies on storage that every node sees; the
checkpoints in it know no topology, so a restart goes on from the newest one with as many workers as there are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from sharding.commands.arguments import absolute
from sharding.common import commandline
from sharding.common.commandline import Command
from sharding.common.errors import InputError
from sharding.common.processes import run_program

RESULT = "result.json"  # what the first rank tells the driver, in the run's folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from training.commands import fit

    fit.add_arguments(parser)
    parser.description = "Train over a Ray cluster; the options of `python -m training fit`, and how many ranks."
    parser.add_argument("--workers", type=int, default=1, help="ranks; with --min-workers the most there may be")
    parser.add_argument(
        "--min-workers", type=int, help="go on with as few ranks as this when nodes are gone, and grow again"
    )
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after which the run gives up")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs of each rank, its loader's processes included")
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one here")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe
    from training.config.resolved import to_tree

    fewest = args.workers if args.min_workers is None else args.min_workers
    if not 1 <= fewest <= args.workers:
        raise InputError("--workers and --min-workers count from 1", value=(fewest, args.workers))
    if args.cpus <= 0:
        raise InputError("a rank needs CPUs", value=args.cpus, remedy="--cpus above 0")
    job = {
        # A wrong recipe fails here, before any worker starts; and its file need not lie on every node.
        "recipe": to_tree(load_recipe(args.recipe, args.set)),
        "shards": absolute(args.shards),
        "run": str(args.run.resolve()),
        # where ranks write what they refuse: each driver's own, for a second job in the folder is refused itself
        "refusal": f".refused-{uuid.uuid4().hex}.json",
    }
    _train(job, args)
    return dict(json.loads((args.run / RESULT).read_text(encoding="utf-8")))


def _train(job: dict[str, Any], args: argparse.Namespace) -> None:
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it would log every line a second time
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    connect(args.address, args.workers)
    gpus = ray.cluster_resources().get("GPU", 0) > 0
    workers = args.workers if args.min_workers is None else (args.min_workers, args.workers)
    trainer = TorchTrainer(
        train_rank,
        train_loop_config=job,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": args.cpus} | ({"GPU": 1} if gpus else {})
        ),
        run_config=RunConfig(
            name=Path(job["run"]).name,
            storage_path=str(Path(job["run"]).parent),
            failure_config=FailureConfig(max_failures=args.max_failures),
        ),
    )
    refusal = Path(job["run"]) / job["refusal"]
    try:
        trainer.fit()
    finally:
        if refusal.is_file():  # the user's to mend, whatever Ray made of it
            details = json.loads(refusal.read_text(encoding="utf-8"))
            refusal.unlink()
            raise InputError(**details)


def connect(address: str, workers: int) -> None:
    """Join the cluster at ``address``, as a job does or from outside; ``local`` starts one with ``workers`` CPUs."""
    import ray

    if ray.is_initialized():
        return
    inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    code = Path(__file__).resolve().parent.parent
    environment = None
    if not inside_job:
        environment = {"py_modules": [str(code / package) for package in ("sharding", "training", "ray_jobs")]}
    options: dict[str, Any] = {"logging_level": "ERROR", "runtime_env": environment}
    if address == "local":
        ray.init(num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **options)
        return
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        raise InputError("no Ray cluster answers", value=address, remedy="`ray start --head`") from error


def train_rank(job: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs; the process group is there already."""
    import ray.train

    from sharding.shards.manifest import Manifest
    from training.config.loading import parse_recipe
    from training.engine.step import ranks
    from training.run.loop import fit

    folder = Path(job["run"])
    if (folder / job["refusal"]).is_file():  # started again after an error that is the user's to mend: do not go on
        return

    def report(state: dict[str, Any]) -> None:
        ray.train.report({"step": state["step"]})

    with ranks() as group:
        try:
            result = fit(parse_recipe(job["recipe"]), Manifest.open(job["shards"]), folder, group, report)
        except InputError as error:
            details = {"what": error.what, "row": error.row, "remedy": error.remedy}
            texts = {"file": error.file, "value": error.value}
            details |= {name: None if value is None else str(value) for name, value in texts.items()}
            folder.mkdir(parents=True, exist_ok=True)
            (folder / job["refusal"]).write_text(json.dumps(details), encoding="utf-8")
            raise  # so that Ray Train ends the other ranks too
        if group.rank == 0:
            (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


def show(result: dict[str, Any]) -> str:
    from training.commands import fit

    return fit.show(result)


def main() -> int:
    commands = {"train": Command("Commands", "ray_jobs.train", "train over a Ray cluster")}
    return commandline.main("ray_jobs/train.py", __doc__ or "", commands, ["train", *sys.argv[1:]])


if __name__ == "__main__":
    run_program(main)
