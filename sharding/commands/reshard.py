"""``reshard``: copy a build into shards of a different size."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.build.reshard import reshard
from sharding.commands.arguments import absolute, add_build, add_shard_size, describe
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity

_ABOUT = """Copy a finished build into shards of a different size.

Nothing is decoded: every sample keeps its bytes, and the samples keep their order.  The copy equals what `build` writes
with that --shard-size, and every command accepts it as a build.  The command can be killed at any moment and run
again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser, "source")
    parser.add_argument(
        "--out", required=True, metavar="NEW", help="an empty folder for the copy: a local path or an s3:// address"
    )
    add_shard_size(parser)
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    return reshard(absolute(args.source), absolute(args.out), args.shard_size, runner_of(args))


def show(result: dict[str, Any]) -> str:
    return (
        f"{quantity(result['samples'], 'sample was', 'samples were')} copied ({result['bytes'] / 1e6:.1f} MB) from "
        f"{quantity(result['from'], 'shard')} into {result['shards']:,}: {result['out']}"
    )
