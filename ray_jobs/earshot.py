"""The ``earshot`` command: the commands of ``sharding`` and of ``training``, on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from sharding import cli as sharding_cli
from sharding.common import commandline
from sharding.common.processes import run_program
from training import cli as training_cli

COMMANDS = sharding_cli.COMMANDS | training_cli.COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    return commandline.main(
        "earshot",
        "Find a sound by describing it: build deduplicated audio-text shards, train retrieval models, use them.",
        COMMANDS,
        training_cli.without_local_rank(argv),
        extend=_offer_ray,
    )


def _offer_ray(parser: argparse.ArgumentParser) -> None:
    from ray_jobs.cluster.runner import add_ray

    add_ray(parser)


def program() -> NoReturn:
    """Run the installed command and end the process with its status."""
    run_program(main)


if __name__ == "__main__":
    program()
