"""``run-report``: one page about a training run."""

from __future__ import annotations

import argparse
import math
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity, show_hours
from training.commands.arguments import require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write one HTML page about a training run, which opens from disk: curves, figures, settings, data, machines, "
        "time and cost. The run may be finished, failed, or still going. With --scores, it also has figures with "
        "intervals, and captions that were hard and easy."
    )
    parser.add_argument("run_folder", metavar="RUN", help="the folder of the run, or s3://BUCKET/RUN")
    parser.add_argument("--out", metavar="HTML", help="the page to write (default: RUN/report.html)")
    parser.add_argument(
        "--scores", nargs="+", default=[], metavar="FOLDER", help="folders that `scores` wrote for this model"
    )
    parser.add_argument("--shards", metavar="OUT", help="the build of these scores, so that examples can be heard")
    parser.add_argument(
        "--price",
        type=float,
        metavar="AMOUNT",
        help="the price of one GPU for an hour (without GPUs: of what one rank uses); the page then estimates the cost",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=12,
        metavar="N",
        help="how many captions are shown of each folder of scores (default: 12)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.reports.page import PageSettings, write_run_report

    if args.examples < 0:
        raise InputError("--examples must be 0 or more", value=args.examples)
    if args.price is not None and not (0 <= args.price < math.inf):
        raise InputError("--price must be an amount of money, 0 or more", value=args.price)
    if args.shards and not args.scores:
        raise InputError("--shards is for the examples of --scores", remedy="name folders of scores, or leave it out")
    out = args.out or f"{args.run_folder.rstrip('/')}/report.html"
    require_file(out)
    settings = PageSettings(tuple(args.scores), args.shards, args.price, args.examples)
    return write_run_report(args.run_folder, out, settings)


def show(result: dict[str, Any]) -> str:
    took = "" if result["hours"] is None else f", {show_hours(result['hours'])}"
    cost = "" if result["cost"] is None else f", cost about {result['cost']:,.2f}"
    return f"{result['state']}: {quantity(result['steps'], 'step')}{took}{cost}\npage: {result['out']}"
