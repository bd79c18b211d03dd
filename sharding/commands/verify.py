"""``verify``: find damaged files of a build."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sharding.commands.arguments import absolute, add_build, describe
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from sharding.shards.integrity import verify

_ABOUT = """Find damaged files of a build: every changed byte and every missing piece, by shard and sample.

The command ends with status 1 if it finds damage."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_true", help="compare only the sizes of shards, and the tables")
    level.add_argument("--decode", action="store_true", help="compare every byte, and decode every sample")
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    level = "quick" if args.quick else "decode" if args.decode else "full"
    damage = verify(absolute(args.out), level, runner_of(args))
    return {
        "out": args.out,
        "level": level,
        "damage": [dataclasses.asdict(one) for one in damage],
        "exit": 1 if damage else 0,
    }


def show(result: dict[str, Any]) -> str:
    if not result["damage"]:
        return f"{result['out']}: no damage found ({result['level']} check)"
    lines = [
        f"{result['out']}: {quantity(len(result['damage']), 'damaged file or sample', 'damaged files or samples')}"
    ]
    for one in result["damage"]:
        sample = f", sample {one['sample']}" if one["sample"] else ""
        lines.append(f"  {one['file']}{sample}: {one['what']}")
    return page(lines)
