"""``reshard``: the same samples in shards of another size."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.build.reshard import reshard
from sharding.commands.arguments import absolute, add_runner, runner_of, size

_ABOUT = """Copy a finished build into shards of another size.

Nothing is decoded: the bytes of every sample stay, and so does their order.  The result is what `build` with that
--shard-size writes, and can be verified, appended to and retried like it.  Killed at any moment, the same command goes
on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.formatter_class = _ABOUT, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="OUT", help="a finished build, local or s3://")
    parser.add_argument("--out", required=True, metavar="NEW", help="where the new shards go: empty, local or s3://")
    parser.add_argument(
        "--shard-size",
        required=True,
        type=size,
        metavar="SIZE",
        help="shards do not grow beyond this: 1e9, 500MB, 2GiB",
    )
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    return reshard(absolute(args.source), absolute(args.out), args.shard_size, runner_of(args))


def show(result: dict[str, Any]) -> str:
    return (
        f"{result['samples']} samples, {result['bytes'] / 1e6:.1f} MB, from {result['from']} shards "
        f"into {result['shards']}: {result['out']}"
    )
