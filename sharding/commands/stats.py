"""``stats``: show durations, sample rates, captions and licences of a build."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sharding.commands.arguments import add_build, describe, on_this_machine
from sharding.common.terminal import page
from sharding.reports.plots import write_plots
from sharding.reports.stats import dataset_stats, ranked_counts, source_rates, split_stats
from sharding.shards.manifest import Manifest

_ABOUT = """Show durations, sample rates, captions and licences of a build, by dataset and split."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    parser.add_argument(
        "--plot",
        type=on_this_machine,
        metavar="FILE",
        help="draw the figures by dataset into this picture; its suffix chooses the format, for example .png",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    manifest = Manifest.open(args.out)
    rates = source_rates(manifest)
    splits = {name: dataclasses.asdict(split) for name, split in split_stats(manifest, rates).items()}
    result: dict[str, Any] = {"out": args.out, "splits": splits}
    if args.plot:
        write_plots(dataset_stats(manifest, rates), args.plot)
        result["plot"] = str(args.plot)
    return result


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{'split':26} {'clips':>8} {'samples':>8} {'hours':>9} {'shortest':>9} {'median':>7} {'longest':>9}  captions"
    ]
    for name, split in result["splits"].items():
        captions = ", ".join(f"{count} {kind}" for kind, count in split["captions"].items())
        lines.append(
            f"{name:26} {split['clips']:8} {split['samples']:8} {split['hours']:9.2f} {split['shortest_s']:8.1f}s "
            f"{split['median_s']:6.1f}s {split['longest_s']:8.1f}s  {captions} ({split['median_words']} words)"
        )
    for title, field in (("sample rates of the published files, Hz", "source_rates"), ("licences", "licences")):
        lines += ["", f"{title}:"]
        for name, split in result["splits"].items():
            named = [f"{value} {count}" for value, count in ranked_counts(split[field], 6)]
            lines.append(f"  {name:26} " + ", ".join(named))
    if "plot" in result:
        lines += ["", f"picture: {result['plot']}"]
    return page(lines)
