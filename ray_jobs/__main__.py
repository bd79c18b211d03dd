"""``python -m ray_jobs``: what one asks a cluster from a laptop."""

from __future__ import annotations

from sharding.common import commandline
from sharding.common.commandline import Command
from sharding.common.processes import run_program

COMMANDS = {
    "plan": Command("Commands", "ray_jobs.plan", "say what a build and training will cost on a cluster"),
    "reproduce": Command("Commands", "ray_jobs.reproduce", "train and measure a table of a paper on a cluster"),
    "tune": Command("Commands", "ray_jobs.tune", "try values of a recipe's keys side by side, and rank them"),
    "status": Command("Commands", "ray_jobs.status", "say what became of a submitted job"),
}


def main(argv: list[str] | None = None) -> int:
    return commandline.main("python -m ray_jobs", "Ask a Ray cluster about Earshot's jobs.", COMMANDS, argv)


if __name__ == "__main__":
    run_program(main)
