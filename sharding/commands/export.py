"""``export``: write the tables of a build as CSV files."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.commands.arguments import add_build, describe, on_this_machine
from sharding.common.terminal import page
from sharding.reports.export import export_csv

_ABOUT = """Write the tables of a build as CSV files for people and spreadsheets.

  clips.csv     one row for each clip that the datasets list
  captions.csv  one row for each caption
  samples.csv   one row for each sample in the shards
  fates.csv     one row for each clip, with what became of it
  matches.csv   one row for each piece of evidence about two clips

A text that a spreadsheet would run as a formula begins with an apostrophe, and a text that begins with an apostrophe
begins with two.  Remove one leading apostrophe to get back the original."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    parser.add_argument(
        "--csv",
        required=True,
        type=on_this_machine,
        metavar="DIR",
        help="the folder that receives the files; it is created if needed",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    return {"folder": str(args.csv), "rows": export_csv(args.out, args.csv)}


def show(result: dict[str, Any]) -> str:
    return page(f"{count:9} rows  {result['folder']}/{name}" for name, count in result["rows"].items())
