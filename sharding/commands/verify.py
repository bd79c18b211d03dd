"""``verify``: find any flipped byte or cut in a build."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sharding.commands.arguments import absolute, add_runner, runner_of
from sharding.shards.integrity import verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a build, local or s3://")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_true", help="sizes and tables only")
    level.add_argument("--decode", action="store_true", help="every byte, and decode every sample")
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
        return f"{result['out']}: as it was written ({result['level']})"
    lines = [f"{result['out']}: {len(result['damage'])} places are not as they were written"]
    for one in result["damage"]:
        sample = f", sample {one['sample']}" if one["sample"] else ""
        lines.append(f"  {one['file']}{sample}: {one['what']}")
    return "\n".join(lines)
