"""A table of a paper on a Ray cluster: runs that are not done are trained side by side, as many as there is room for.

    ray job submit --address http://HEAD:8265 --working-dir . -- python -m ray_jobs reproduce calvet-table-1
        --shards OUT --out FOLDER --workers 2

The options are those of ``earshot reproduce``, and those of ``ray_jobs/train.py`` for the ranks of each run.  A run
starts when the runs are trained from which it starts or learns.  One that fails is named at the end and loses no other.
What is done is not done again, so the same command continues, on the cluster or without one.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.cluster.connection import connect, refuse_relative
from ray_jobs.cluster.metrics import watching
from ray_jobs.cluster.ranks import Ranks, add_ranks, in_one_line, run_on_ranks
from sharding.commands.arguments import absolute
from sharding.common.errors import InputError
from training.commands import reproduce

if TYPE_CHECKING:
    from training.reproduce.carrying_out import Work

REFRESH_S = 10.0  # how often it is looked whether there is room for more
TRIES = 3  # of a run whose supervisor dies with its node, besides the first
show = reproduce.show


@dataclass(frozen=True)
class OneRun:
    """A run of a plan, as the ranks get it; ``relevance`` is a table as of `training.reproduce.carrying_out`."""

    work: Work
    name: str
    seed: int
    relevance: Any

    @property
    def label(self) -> str:
        """The name of the run in messages and metrics."""
        return f"{self.name}, seed {self.seed}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reproduce.add_arguments(parser)
    parser.description = (
        "Train what a table of a paper takes on a Ray cluster, several runs side by side, and show our figures beside "
        "the published ones. A failed run is named and loses no other; the same command does what is left."
    )
    add_ranks(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.shards.manifest import Manifest
    from training.engine.distributed import LocalGroup
    from training.evaluation.relevance import open_relevance
    from training.reproduce.carrying_out import check_split, outline, tabulate
    from training.reproduce.plotting import write_curves

    ranks = Ranks.of(args)
    if args.dry_run:
        return reproduce.run(args)
    reproduce.refuse_store(args.out)
    refuse_relative("--out", str(args.out))
    args.out, args.shards = Path(absolute(str(args.out))), args.shards and absolute(args.shards)
    work = reproduce.work_of(args)
    if work.plan.rows:
        remedy = "`earshot reproduce`, which torchrun gives several GPUs, carries it out"
        raise InputError("a table of tests is not carried out over a cluster", value=args.plan, remedy=remedy)
    table = None if args.relevance is None else open_relevance(args.relevance)
    manifest = Manifest.open(work.shards)
    check_split(work, manifest)
    told = outline(work, manifest.table, table is not None)
    connect(args.address, args.workers)
    failed = _carry_out(work, table, ranks)
    try:
        found = tabulate(work, LocalGroup(), table)
    except InputError as error:
        if not failed:
            raise
        reasons = "; ".join(f"{label}: {why}" for label, why in failed.items())
        raise InputError(f"{error.what}: {reasons}", file=work.folder, remedy="the same command continues") from error
    if args.plot is not None and not failed:
        write_curves(found["rows"], work.plan.curve, work.plan.axis, args.plot)
    state = {"dry": False, "scale": args.scale, "towers": args.towers, "failed": failed}
    return told | found | state | ({"exit": 1} if failed else {})


def _carry_out(work: Work, table: Any, ranks: Ranks) -> dict[str, str]:
    """Do the runs that are left; those that failed or could not begin, each with the reason."""
    import ray

    from training.run.progress import StatusLine

    task = ray.remote(num_cpus=0, max_retries=TRIES)(_supervise)
    waiting = [OneRun(work, name, seed, table) for name, seed in work.left()]
    running: dict[Any, OneRun] = {}
    failed: dict[str, str] = {}
    done, line = 0, StatusLine("runs", len(waiting))
    while waiting or running:
        for one in [each for each in waiting if _lost_needs(each, failed)]:
            waiting.remove(one)
            failed[one.label] = f"not begun, because it needs {', '.join(_lost_needs(one, failed))}"
        for one in list(itertools.islice(_ready(waiting), max(0, ranks.room() - len(running)))):
            waiting.remove(one)
            running[task.remote(one, ranks)] = one
            line.say(f"  {one.label}: begun")
        if not running:  # a shared file system may show a finished run late
            time.sleep(1)
            continue
        for reference in ray.wait(list(running), num_returns=1, timeout=REFRESH_S)[0]:
            one = running.pop(reference)
            if (why := _failure(reference)) is not None:
                failed[one.label] = why
            done += 1
            line.say(f"  {one.label}: {'done' if why is None else f'failed: {why}'}")
            line.update(done)
    return failed


def _ready(waiting: list[OneRun]) -> Iterator[OneRun]:
    """The runs of which everything that they need is trained."""
    return (one for one in waiting if all(one.work.is_done(name, one.seed) for name in one.work.needs(one.name)))


def _lost_needs(one: OneRun, failed: dict[str, str]) -> list[str]:
    """The runs that a run needs and that have failed."""
    needs = [OneRun(one.work, name, one.seed, None).label for name in one.work.needs(one.name)]
    return [label for label in needs if label in failed]


def _failure(reference: Any) -> str | None:
    """Why a run failed; None: it is done."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause or error
        return str(cause) if isinstance(cause, InputError) else in_one_line(cause)
    except ray.exceptions.RayError as error:
        return in_one_line(error)
    return None


def _supervise(one: OneRun, ranks: Ranks) -> None:
    """Start the ranks of a run, and wait for their end."""
    run_on_ranks(_do, one, str(one.work.run(one.name, one.seed)), ranks)


def _do(one: OneRun, group: Any) -> None:
    """Train and score a run with the other ranks."""
    from sharding.shards.manifest import Manifest
    from training.reproduce.carrying_out import do_run
    from training.run.progress import naming_run

    manifest = Manifest.open(one.work.shards)
    with naming_run(one.label):
        do_run(one.work, one.name, one.seed, manifest, group, one.relevance, watching(one.label))
