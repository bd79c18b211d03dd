"""What became of a job on a cluster, from anywhere that reaches the dashboard's address.

    python -m ray_jobs status [JOB] --address http://HEAD:8265

Without a job it lists all of them.  With one it says its state, how long it has run, its newest lines about progress,
and, where it failed, the line that says why.
"""

from __future__ import annotations

import argparse
import itertools
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from ray_jobs.cluster.connection import tells_progress, without_worker
from sharding.common.errors import InputError
from sharding.common.terminal import page

_EXIT = re.compile(r"exit code (\d+)")
LINES = 5  # newest lines about progress, one of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say what became of a job that was submitted with `ray job submit`, or list all jobs."
    parser.add_argument("job", nargs="?", metavar="JOB", help="the job's id, as `ray job submit` printed it")
    parser.add_argument(
        "--address", default="http://127.0.0.1:8265", help="the dashboard of the cluster (http://127.0.0.1:8265)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ray.job_submission import JobSubmissionClient

    try:
        # without a scheme, Ray would look for another server of the cluster at this address, for half a minute
        client = JobSubmissionClient(args.address if "://" in args.address else f"http://{args.address}")
        jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    except (ConnectionError, RuntimeError, ValueError) as error:
        remedy = "name the head's address, or forward it first: `ray dashboard cluster.yaml`"
        raise InputError("no dashboard of a Ray cluster answers", value=args.address, remedy=remedy) from error
    if args.job is None:
        return {"jobs": [_about(job) for job in sorted(jobs.values(), key=lambda job: job.start_time or 0)]}
    if args.job not in jobs:
        raise InputError("the cluster has no such job", value=args.job, remedy=f"its jobs: {', '.join(jobs) or 'none'}")
    return {"jobs": [_about(jobs[args.job]) | newest_lines(client.get_job_logs(args.job))]}


def _about(job: Any) -> dict[str, Any]:
    return {
        "job": job.submission_id,
        "state": str(job.status.value if hasattr(job.status, "value") else job.status),
        "command": job.entrypoint,
        "start_ms": job.start_time,
        "end_ms": job.end_time,
        "message": why(job.message or "") if str(job.status).endswith("FAILED") else None,
    }


def why(message: str) -> str:
    """Ray's own message about a job that failed, without the end of the log that it holds, and what a signal means."""
    first = message.strip().partition("\n")[0].partition(", last available logs")[0]
    code = int(found[1]) if (found := _EXIT.search(first)) else 0
    if code == 128 + signal.SIGKILL:
        return f"{first}: it was killed, by somebody or for lack of memory; the same job submitted again continues"
    return first


def newest_lines(log: str) -> dict[str, Any]:
    """The newest lines about progress and failures of a job's log, and the last that names an error and its remedy.

    Of lines that begin alike up to their first number, such as ``steps 4/9``, only the newest is there: so a sentence
    about a rank that was lost is not pushed out by the steps that follow.
    """
    lines = [without_worker(line).rstrip() for line in log.splitlines()]
    told = [line.strip() for line in lines if tells_progress(line) and not line.startswith("  remedy:")]
    newest: dict[str, str] = {}
    for line in told:
        kind = re.split(r"\d", line, maxsplit=1)[0] or line
        newest.pop(kind, None)  # a newer line comes after the others
        newest[kind] = line
    wrong = [
        f"{before}; {line.strip()}"
        for before, line in itertools.pairwise(lines)
        if line.startswith("  remedy:") and before
    ]
    return {"progress": list(newest.values())[-LINES:], "error": wrong[-1] if wrong else None}


def show(result: dict[str, Any]) -> str:
    lines = []
    for job in result["jobs"]:
        lines.append(f"{job['job']}  {job['state']}{_duration(job)}  {job['command']}")
        lines += [f"  {line}" for line in job.get("progress", [])]
        wrong = job.get("error") if job["state"] == "FAILED" else None
        lines += [f"  {wrong or job['message']}"] if job["state"] == "FAILED" and "progress" in job else []
    return page(lines or ["no job was submitted yet"])


def _duration(job: dict[str, Any]) -> str:
    if not job["start_ms"]:
        return ""
    end = job["end_ms"] / 1000 if job["end_ms"] else datetime.now(UTC).timestamp()
    return f" after {timedelta(seconds=round(end - job['start_ms'] / 1000))}"
