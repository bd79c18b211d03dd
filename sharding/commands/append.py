"""``append``: new datasets into a finished build."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.build.append import append
from sharding.commands.arguments import absolute, add_datasets, add_runner, datasets_of, runner_of
from sharding.commands.build import reason_lines

_ABOUT = """Add datasets to a finished build.

Its shards are not rewritten, and its clips keep their fates: only what is new is decoded, fingerprinted and compared,
with itself and with all that is there.  New clips that leak into protected splits are withheld, and copies of clips
that are there yield.  Where a build of all datasets from the beginning would have decided otherwise about an old clip,
that is reported (OUT/differences.parquet); `build --new-plan` with all datasets decides anew.  Killed at any moment,
the same command goes on; until its last step OUT is the build that it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.formatter_class = _ABOUT, argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", metavar="OUT", help="a finished build, local or s3://")
    add_datasets(parser, "what to add (folders, local or s3://)")
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    return append(absolute(args.out), *datasets_of(args), runner_of(args))


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['out']}: {result['shards']} new shards"]
    for name, fates in result["added"].items():
        lines.append(f"  {name}: " + (", ".join(f"{count} {fate}" for fate, count in fates.items()) or "no clips"))
        lines += reason_lines(result["reasons"][name])
    if result["leaks"]:
        lines.append(
            f"WARNING: {result['leaks']} old training clips share sound with protected clips that were added: "
            "`build --new-plan` with all datasets withholds them"
        )
    if result["differences"]:
        lines.append(
            f"{result['differences']} old clips would have another fate in a build of all datasets "
            "(differences.parquet); they keep theirs:"
        )
        for row in result["examples"]:
            other = f" by {row['anew_other']}" if row["anew_other"] else ""
            anew = f"{row['anew_fate']} ({row['anew_reason']}){other}"
            lines.append(f"  {row['clip_id']}: {row['fate']} ({row['reason']}), not {anew}")
        if result["differences"] > len(result["examples"]):
            lines.append(f"  ... and {result['differences'] - len(result['examples'])} more")
    return "\n".join(lines)
