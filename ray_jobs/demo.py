"""``make demo``: from published layouts to a trained retriever, through ``ray job submit``."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray_jobs.cluster.local_cluster import local_cluster, submit
from ray_jobs.demo_report import write_demo_report
from sharding.common.errors import InputError
from sharding.common.processes import number_of, run_program
from sharding.common.terminal import accept_any_text, page
from sharding.demo.synthesis import synthesise

HERE = Path(__file__).resolve().parent.parent
HELD_OUT = "clotho/evaluation"
MARK = ".earshot-demo"  # in folders that a demo made; no other folder is removed


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="the folder for everything that the demo writes")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the synthesised corpus")
    parser.add_argument("--clips", type=int, default=900, help="about how many clips the corpus has")
    args = parser.parse_args()
    accept_any_text()
    try:
        run(args.out.resolve(), args.seed, args.clips)
    except InputError as error:
        print(f"demo: {page(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("demo: interrupted", file=sys.stderr)
        return 128 + number_of(interrupt)
    return 0


def run(out: Path, seed: int, clips: int) -> None:
    """Run all stages; every file goes below ``out``, whose former content is removed."""
    started = time.monotonic()
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError("the folder was not made by a demo", file=out, remedy="choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    corpus, shards, training = out / "corpus", out / "shards", out / "run"

    def stage(number: int, text: str) -> None:
        print(f"[{number}/5] {text}  ({time.monotonic() - started:.0f} s)", flush=True)

    stage(1, "synthesising a corpus in the four published layouts, while Ray starts")
    with ExitStack() as closing:
        made = closing.enter_context(ThreadPoolExecutor(1)).submit(synthesise, corpus, seed, clips)
        address = closing.enter_context(local_cluster(2, out / "logs/ray.log"))
        made.result()
        stage(2, "building deduplicated shards: ray job submit ... ray_jobs/build_shards.py")
        build = ["python", "ray_jobs/build_shards.py", f"--out={shards}", "--shard-size=8MB"]
        build += [f"--{name}={corpus / name}" for name in ("clotho", "audiocaps", "wavcaps", "tacos")]
        build += [f"--exclude-freesound-ids={corpus / 'excluded_freesound_ids.csv'}"]
        submit(address, HERE, build, out / "logs/build.log")
        stage(3, "training on two DeepSpeed ranks: ray job submit ... ray_jobs/train.py")
        fit = ["python", "ray_jobs/train.py", "training/recipes/demo.yaml"]
        fit += [f"--shards={shards}", f"--run={training}", "--workers=2"]
        submit(address, HERE, fit, out / "logs/train.log")
    stage(4, f"evaluating on {HELD_OUT}, which training has never used")
    evaluation = evaluate(training, shards)
    stage(5, "writing the report")
    page = write_demo_report(out, shards, training, evaluation)
    for direction in ("text_to_audio", "audio_to_text"):
        reached = evaluation[direction]
        names = ("R@1", "R@5", "R@10", "mAP@10", "mAP@16")
        line = "  ".join(f"{name} {reached[name]:.3f} ({reached['chance_' + name]:.3f})" for name in names)
        print(f"{direction.replace('_', ' ')} (chance): {line}")
    print(f"report: {page}\nsearch: earshot serve {out / 'index'}\n{time.monotonic() - started:.0f} s in all")


def evaluate(training: Path, shards: Path) -> dict[str, Any]:
    """Run ``earshot evaluate`` in a process of its own, as a user would."""
    command = [sys.executable, "-m", "ray_jobs.earshot", "evaluate", str(training / "export"), f"--shards={shards}"]
    done = subprocess.run(
        [*command, f"--split={HELD_OUT}", "--json"], cwd=HERE, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise InputError("the evaluation failed", remedy="see its message above")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    run_program(main)
