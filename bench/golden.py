"""Whether a change of the code changes what users get: the bytes of builds and the losses of training runs.

    python -m bench.golden [--against REV] [--only builds|losses] [--quick]
    python -m bench.golden --regenerate

REV (default: HEAD) is checked out into a temporary git worktree.  This tree, with what is not committed yet, and REV
then run the same commands side by side with the same Python, and every file that they write is compared by its
SHA-256: a synthesised corpus; builds of it, at once, trimmed and planned anew, appended to, resharded, retried, in an
object store and as a Ray job; and runs of 20 steps of each head, on one rank, on two, and with the cached step.  Only
command lines are used, so modules may move and change their names.  Where files differ or a command fails, the exit
status is 1.

``--regenerate`` measures the golden set anew that is stored in ``tests/golden`` (``bench.golden_set``).  It is wanted
where a change is meant to move bytes or losses, and says so in its commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from bench.golden_inputs import HEADS, add_late, write_recipes, write_source
from ray_jobs.cluster.local_cluster import local_cluster, submit
from sharding.common.errors import InputError

HERE = Path(__file__).resolve().parent.parent
TIMEOUT_S = 900
METRICS = "metrics.jsonl"
SPEEDS = ("clips_per_s", "pairs_per_s", "data_wait", "time")
STARTS = "starts.jsonl"
LEFT_OUT = (
    f"Of each run, {STARTS} and in {METRICS} {', '.join(SPEEDS)} are left out: they tell how fast the machine was."
)

# The steps of each scenario.  {out} is where its result goes, {inputs} is the same folder for both revisions.
OLD = " --clotho={inputs}/corpus/clotho --audiocaps={inputs}/corpus/audiocaps --wavcaps={inputs}/corpus/wavcaps"
TACOS = " --tacos={inputs}/corpus/tacos"
MINE = " --source=mine={inputs}/mine"
SETTINGS = " --out={out} --exclude-freesound-ids={inputs}/corpus/excluded_freesound_ids.csv --shard-size=3MB"
BUILD = "sharding build" + OLD + TACOS + SETTINGS + " --workers=2"
APPEND = ["sharding build" + OLD + SETTINGS + " --workers=2", "sharding append {out}" + TACOS + MINE]
BUILD_MINE = "sharding build" + MINE + " --out={out} --protect=mine/test --shard-size=100KB --window-s=1"
ADD_LATE = "the clip that was missing is there now"  # no command: the bench itself adds it
BUILDS = {
    "corpus": ["sharding demo-corpus {out} --clips=40"],
    "build": [BUILD],
    "append": APPEND,
    "retry": [BUILD_MINE, ADD_LATE, BUILD_MINE + " --retry=missing"],
    "trim": [BUILD + " --leaks=trim"],
    "new-plan": [BUILD + " --leaks=trim", BUILD + " --new-plan"],
    "reshard": ["sharding reshard {work}/build --out={out} --shard-size=1MB"],
    "s3": APPEND,
    "ray": ["ray_jobs/build_shards.py" + OLD + TACOS + SETTINGS],
}

FIT = "training fit {inputs}/HEAD.yaml --shards={work}/build --run={out}"
RUNS = {
    "one-rank": FIT,
    "two-ranks": "torch.distributed.run --standalone --nproc_per_node=2 -m -- " + FIT,
    "cached": FIT + " --set engine.chunk=4",
}
LOSSES = {f"{head} {run}": [words.replace("HEAD", head)] for head in HEADS for run, words in RUNS.items()}
NEEDED = ("corpus", "build")  # by the others
QUICK = (*NEEDED, "append", "retry", "dual one-rank", "token-attention cached")


@dataclass(frozen=True)
class Tree:
    """A revision of Earshot and where it works.

    Attributes:
        code: the root of the revision.
        work: the folder of its results.
        inputs: the folder that both revisions read.
        ray: the address of a job server; empty if no scenario needs one.
    """

    code: Path
    work: Path
    inputs: Path
    ray: str

    def result(self, scenario: str) -> str:
        """The folder or address where a scenario's result goes."""
        return f"s3://golden/{self.work.name}" if scenario == "s3" else str(self.work / scenario.replace(" ", "-"))

    def take(self, scenario: str, step: str) -> None:
        """Take one step of a scenario; ``InputError`` if a command fails."""
        places = {"out": self.result(scenario), "work": self.work, "inputs": self.inputs}
        words = [word.format(**places) for word in step.split()]
        log = self.work / "log.txt"
        if step == ADD_LATE:
            add_late(self.inputs / "mine")
        elif words[0].startswith("ray_jobs/"):
            submit(self.ray, self.code, ["python", *words], log, show=False)
        else:
            self._run(words, log)

    def _run(self, words: Sequence[str], log: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1"}
        with log.open("w") as out:
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=self.code, env=environment, stdout=out, stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise InputError(f"exit status {done.returncode}: {' '.join(words)}\n{log.read_text().strip()[-1000:]}")


@dataclass(frozen=True)
class Result:
    """The result of a scenario: the checksum of every file, and the figures of each step of a training run."""

    files: dict[str, str]
    figures: list[dict[str, Any]]


def read_result(url: str) -> Result:
    """The files below a folder or an address, without those parts that depend on the speed of the machine."""
    system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    contents = {str(path).removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}
    contents.pop(STARTS, None)
    figures = [json.loads(line) for line in contents.pop(METRICS, b"").splitlines()]
    for line in figures:
        for name in SPEEDS:
            line.pop(name, None)
    return Result({name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}, figures)


def differing(here: Result, there: Result) -> list[str]:
    """Names of files that are not the same, or in one result alone; of metrics the first step that differs."""
    names = sorted(here.files.keys() | there.files.keys())
    found = [name for name in names if here.files.get(name) != there.files.get(name)]
    if len(here.figures) != len(there.figures):
        found.append(f"{METRICS} ({len(here.figures)} steps here, {len(there.figures)} there)")
    for mine, other in zip(here.figures, there.figures, strict=False):
        fields = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        if fields:
            return [*found, f"{METRICS} (from step {mine['step']}: {', '.join(fields)})"]
    return found


def loss_difference(here: Result, there: Result) -> float:
    """The largest absolute difference between two losses of the same step."""
    pairs = zip(here.figures, there.figures, strict=False)
    return max((abs(mine["loss"] - other["loss"]) for mine, other in pairs), default=0.0)


def compare(name: str, steps: Sequence[str], trees: Sequence[Tree]) -> bool:
    """Run one scenario in both trees, print its row, and tell whether the results are the same."""
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(len(trees)) as pool:
            for step in steps:
                list(pool.map(lambda tree: tree.take(name, step), trees))  # noqa: B023 -- used up within the turn
    except InputError as error:
        print(f"{name:30} a command failed\n{error}", flush=True)
        return False
    here, there = (read_result(tree.result(name)) for tree in trees)
    found = differing(here, there)
    loss = f"{loss_difference(here, there):.3g}" if here.figures else "-"
    seconds = time.monotonic() - began
    print(f"{name:30}{len(here.files) + bool(here.figures):7}{len(found):11}{loss:>12}{seconds:7.0f}", flush=True)
    for each in found:
        print(f"    {each}", flush=True)
    return not found


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """A worktree of ``revision`` at ``folder``, removed at the end."""
    git = ["git", "-C", str(HERE), "worktree"]
    done = subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(done.stderr.strip(), value=revision, remedy="name a commit with --against, in a git clone")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@contextmanager
def object_store() -> Iterator[None]:
    """A real S3 server on loopback, which this process and those that it starts use until the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    try:
        fsspec.filesystem("s3").mkdir("golden")
        yield
    finally:
        server.stop()


def chosen(only: str | None, quick: bool) -> dict[str, list[str]]:
    """The scenarios that were asked for, and those that they need."""
    wanted = {None: BUILDS | LOSSES, "builds": BUILDS, "losses": {name: BUILDS[name] for name in NEEDED} | LOSSES}[only]
    return {name: steps for name, steps in wanted.items() if not quick or name in QUICK}


def compare_with(revision: str, scenarios: dict[str, list[str]]) -> bool:
    """Whether this tree and ``revision`` give the same in every scenario."""
    os.environ.pop("PYTHONPATH", None)  # Ray's workers would inherit it
    with ExitStack() as closing:
        work = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="golden-")))
        other = closing.enter_context(checked_out(revision, work / "revision"))
        ray = closing.enter_context(local_cluster(2, work / "ray.log")) if "ray" in scenarios else ""
        if "s3" in scenarios:
            closing.enter_context(object_store())
        (work / "inputs").mkdir()
        write_source(work / "inputs/mine")
        write_recipes(work / "inputs")
        trees = [Tree(code, work / name, work / "inputs", ray) for name, code in (("here", HERE), ("there", other))]
        for tree in trees:
            tree.work.mkdir()
        (work / "inputs/corpus").symlink_to(work / "here/corpus")  # once made, it is the same folder for both
        print(f"{LEFT_OUT}\n\n{'scenario':30}{'files':>7}{'differing':>11}{'loss diff.':>12}{'s':>7}")
        same = [compare(name, steps, trees) for name, steps in scenarios.items()]  # all of them, for each has its row
        return all(same)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD", metavar="REV", help="the revision to compare with (default: HEAD)")
    parser.add_argument("--only", choices=("builds", "losses"), help="builds alone, or losses and what they need")
    parser.add_argument("--quick", action="store_true", help="fewer scenarios: about a minute")
    parser.add_argument("--regenerate", action="store_true", help="write tests/golden anew, and compare nothing")
    args = parser.parse_args()
    if args.regenerate:
        from bench import golden_set  # imports torch: seconds

        golden_set.regenerate()
        return 0
    try:
        same = compare_with(args.against, chosen(args.only, args.quick))
    except InputError as error:
        print(f"golden: {error}", file=sys.stderr)
        return 2
    print(f"\nThis tree gives {'the same as' if same else 'something else than'} {args.against}.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
