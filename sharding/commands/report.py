"""``report``: write the HTML report of a build."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.commands.arguments import add_build, describe
from sharding.reports.report import write_report

_ABOUT = """Write the HTML report of a build to OUT/report/index.html.

The page shows which clips were written, which were not, and why, with players for clips that share sound.  It is one
file that loads nothing else."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    return {"report": write_report(args.out)}


def show(result: dict[str, Any]) -> str:
    return f"report: {result['report']}"
