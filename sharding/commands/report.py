"""``report``: a build as one HTML page."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.reports.report import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a finished build, local or s3://")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return {"report": write_report(args.out)}


def show(result: dict[str, Any]) -> str:
    return f"report: {result['report']}"
