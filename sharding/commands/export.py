"""``export``: a build's tables as CSV."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.commands.arguments import on_this_machine
from sharding.reports.export import export_csv

_ABOUT = """Write a build's tables as CSV files for people and spreadsheets: clips.csv (one row a clip), captions.csv
(one row a caption), samples.csv (one row a sample in a shard), fates.csv and matches.csv."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _ABOUT
    parser.add_argument("out", metavar="OUT", help="a finished build, local or s3://")
    parser.add_argument(
        "--csv", required=True, type=on_this_machine, metavar="DIR", help="folder for the files; it is created"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    return {"folder": str(args.csv), "rows": export_csv(args.out, args.csv)}


def show(result: dict[str, Any]) -> str:
    return "\n".join(f"{count:9} rows  {result['folder']}/{name}" for name, count in result["rows"].items())
