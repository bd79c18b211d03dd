"""``append``: add datasets to a finished build."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.build.append import append
from sharding.commands.arguments import absolute, add_allow_unprotected, add_build, add_datasets, datasets_of, describe
from sharding.commands.build import reason_lines
from sharding.common.runners import add_runner, runner_of
from sharding.common.terminal import page

_ABOUT = """Add datasets to a finished build.

The existing shards are not rewritten, and the existing clips keep their fates.  Only the new clips are decoded; they
are compared with each other and with all existing clips.  A new clip that shares sound with a protected split is
withheld, and a new clip that is a copy of an existing one becomes a duplicate.

A build of all datasets at once might have treated some existing clips differently.  These clips are listed in
OUT/differences.parquet; `build --new-plan` with all datasets decides about every clip again.

The command can be killed at any moment and run again.  OUT remains the old build until the last step."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    add_datasets(parser, "datasets to add (local folders or s3:// addresses)")
    add_runner(parser)
    add_allow_unprotected(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    result = append(absolute(args.out), *datasets_of(args), runner_of(args), args.allow_unprotected)
    read = any(count for fates in result["added"].values() for fate, count in fates.items() if fate != "failed")
    return result | {"exit": 0 if read else 1}


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['out']}: {result['shards']} new shards"]
    if result["exit"]:
        lines.append("ERROR: no audio could be read. Once the cause is removed, `build --retry CLASS` reads it again")
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
            f"{result['differences']} old clips keep their fates, but a build of all datasets would treat them "
            "differently (differences.parquet):"
        )
        for row in result["examples"]:
            other = f" by {row['anew_other']}" if row["anew_other"] else ""
            anew = f"{row['anew_fate']} ({row['anew_reason']}){other}"
            lines.append(f"  {row['clip_id']}: {row['fate']} ({row['reason']}); in a new build: {anew}")
        if result["differences"] > len(result["examples"]):
            lines.append(f"  ... and {result['differences'] - len(result['examples'])} more")
    return page(lines)
