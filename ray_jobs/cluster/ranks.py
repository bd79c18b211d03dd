"""A function on the ranks that Ray Train starts, and starts again where one dies."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray_jobs.cluster.connection import add_nodes, resources_of, selector
from sharding.common.addresses import is_address
from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import file_in_the_way

LOOK_S = 10.0  # between two looks at what the cluster has
FEWER = "fewer --workers need less, and --min-workers begins with fewer"


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run, and what each of them gets.

    Attributes:
        workers: ranks at most.
        fewest: ranks with which a run begins or goes on.
        failures: restarts after which a run is given up.
        cpus: CPUs of each rank.
        gpus: GPUs of each rank; None: 1 if the cluster has GPUs now, else 0.
        nodes: the label of the nodes on which ranks run; None: all.
    """

    workers: int
    fewest: int
    failures: int
    cpus: float
    gpus: int | None
    nodes: str | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Ranks:
        """The number and resources of ranks by the options of `add_ranks`; ``InputError`` if they cannot be met."""
        fewest = args.workers if args.min_workers is None else args.min_workers
        if not 1 <= fewest <= args.workers:
            raise InputError("--workers and --min-workers must be at least 1", value=(fewest, args.workers))
        if args.cpus <= 0:
            raise InputError("a rank needs processor cores", value=args.cpus, remedy="--cpus above 0")
        return cls(args.workers, fewest, args.max_failures, args.cpus, args.gpus, args.nodes)

    def each(self) -> dict[str, float]:
        """The resources of one rank on the cluster as it is now."""
        has_gpus = resources_of(self.nodes).get("GPU", 0) > 0 if self.gpus is None else self.gpus == 1
        return {"CPU": self.cpus} | ({"GPU": 1.0} if has_gpus else {})

    def room(self) -> int:
        """How many runs fit on the cluster as it is now; at least 1, for nodes may still join."""
        there = resources_of(self.nodes)
        return max(1, int(min(there.get(name, 0) / (self.fewest * count) for name, count in self.each().items())))


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """The options that say on how many ranks a run trains."""
    parser.add_argument("--workers", type=int, default=1, help="how many ranks train; with --min-workers, at most")
    parser.add_argument(
        "--min-workers", type=int, help="continue with as few ranks as this when nodes are lost, and grow again"
    )
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after which the run is given up")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs of each rank, its loader's processes included")
    parser.add_argument(
        "--gpus", type=int, choices=(0, 1), help="GPUs of each rank; by default 1 if the cluster has GPUs now, else 0"
    )
    add_nodes(parser)
    parser.add_argument("--address", default="auto", help="the Ray cluster; `local` starts one on this machine")


@dataclass(frozen=True)
class Share:
    """The work of every rank: ``function`` is called with ``task`` and the group of the ranks."""

    function: Callable[[Any, Any], None]
    task: Any


def run_on_ranks(function: Callable[[Any, Any], None], task: Any, place: str, ranks: Ranks) -> None:
    """Call a function on all ranks of a run, and wait for its end; this process belongs to a cluster already.

    Args:
        function: is called with ``task`` and the group of the ranks.
        task: what is to be done.
        place: the run's folder, or its address, which every rank sees.
        ranks: how many, and with what.

    Raises:
        InputError: a file stands where the folder should be; what a rank raised, or the ranks died more often than
            ``ranks.failures`` allows.
    """
    found = None if is_address(place) else file_in_the_way(place)
    if found is not None:  # Ray Train would say that its controller died
        remedy = "move it away, or name another folder"
        raise InputError("a file stands where the run's folder should be", file=found, remedy=remedy)
    from ray.train import TrainingFailedError

    from ray_jobs.cluster.rank_failures import explained

    each = ranks.each()
    trainer = _trainer(Share(function, task), place, ranks, each)
    wanted = {name: ranks.fewest * count for name, count in each.items()}
    with telling_shortage(ranks.nodes, wanted, quantity(ranks.fewest, "rank needs", "ranks need"), FEWER):
        try:
            with _own_interrupts():
                trainer.fit()
        except TrainingFailedError as error:
            raise explained(error, place) from error


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the program as an interrupt: Ray Train's handler ends the ranks, and then exits with status 0."""
    own = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, own)


def _trainer(share: Share, place: str, ranks: Ranks, each: dict[str, float]) -> Any:
    """Ray Train's trainer, which gives ``share`` to every rank; ``each`` are the resources of one."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    from ray_jobs.cluster.rank_failures import RankFailures
    from ray_jobs.cluster.rank_network import RankNetwork
    from ray_jobs.cluster.rank_trainer import RankTrainer

    return RankTrainer(
        rank_main,
        train_loop_config={"share": share},
        torch_config=RankNetwork(backend="nccl" if "GPU" in each else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=ranks.workers if ranks.fewest == ranks.workers else (ranks.fewest, ranks.workers),
            use_gpu="GPU" in each,
            resources_per_worker=each,
            label_selector=selector(ranks.nodes),
        ),
        run_config=RunConfig(
            name=place.rpartition("/")[2],
            storage_path=place.rpartition("/")[0] or "/",
            failure_config=FailureConfig(max_failures=ranks.failures),
            callbacks=[RankFailures(ranks.failures)],
            logging_config=LoggingConfig(log_level="WARNING"),  # the run has its own lines about progress
        ),
    )


@contextmanager
def telling_shortage(nodes: str | None, wanted: Mapping[str, float], who: str, remedy: str) -> Iterator[None]:
    """Meanwhile, say whenever work waits for nodes, because the cluster cannot hold what is ``wanted``.

    Args:
        nodes: the label of the nodes that count; None: all.
        wanted: resources.
        who: wants them, and a verb.
        remedy: what needs less.
    """
    ended = threading.Event()
    watch = threading.Thread(target=_watch_nodes, args=(ended, nodes, wanted, who, remedy), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _watch_nodes(ended: threading.Event, nodes: str | None, wanted: Mapping[str, float], who: str, remedy: str) -> None:
    said = None
    while True:
        try:
            says = shortage(resources_of(nodes), wanted, who, remedy)
        except Exception:  # the head died, so Ray ends this driver
            return
        if says is not None and says != said:
            print(f"  {says}", file=sys.stderr, flush=True)
        said = says
        if ended.wait(LOOK_S):
            return


def shortage(available: Mapping[str, float], wanted: Mapping[str, float], who: str, remedy: str) -> str | None:
    """What the cluster lacks; None if nothing.  See `telling_shortage`."""
    lacking = [name for name, count in wanted.items() if available.get(name, 0) < count]
    if not lacking:
        return None
    needs = ", ".join(f"{wanted[name]:g} {name}s" for name in lacking)
    there = ", ".join(f"{available.get(name, 0):g}" for name in lacking)
    return f"waiting for nodes: {who} {needs}, and the cluster has {there}; {remedy}"


def in_one_line(error: BaseException) -> str:
    """The kind of an error and its last line, which is where a traceback in it says what happened."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1].strip()}"


def rank_main(config: dict[str, Share]) -> None:
    """Do a share as one of Ray Train's workers; Ray Train has made the process group.

    Where it starts the ranks again, in another number, it takes the group away from those that are still at work:
    what they then fail with says nothing, and is not shown.
    """
    import torch.distributed as dist

    from training.engine.launch import ranks

    logging.getLogger().setLevel(logging.WARNING)  # Ray Train lets every library's messages through
    share = config["share"]
    with ranks() as group:
        had_network = dist.is_initialized()
        try:
            share.function(share.task, group)
        except Exception:
            if had_network and not dist.is_initialized():
                raise RuntimeError(f"rank {group.rank} was stopped, because the ranks start again") from None
            raise
