"""``mine``: hard negatives of clips, for a re-ranker."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, open_build, require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find for each clip of a split the captions of other clips that look nearest, and write them for "
        "task.negatives of a re-ranker. Captions of a clip's group and kin are left out, and those that resemble one "
        "of its own captions, since they may be true as well."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument("--split", required=True, metavar="SPLIT", help="the split, for example clotho/development")
    parser.add_argument(
        "--top", type=int, default=20, metavar="N", help="how many captions to keep for each clip (default: 20)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.9,
        metavar="X",
        help="captions whose cosine to one of the clip's own is at least X are taken for true (0.9)",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the Parquet file to write, local or s3://")
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.curation.mining import mine
    from training.models.hub import open_model

    if args.top < 1 or not -1 <= args.threshold <= 2:
        raise InputError("--top must be at least 1, and --threshold a cosine", value=(args.top, args.threshold))
    require_file(args.out)
    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    return mine(retriever, manifest, args.split, args.top, args.threshold, args.out, runner_of(args))


def show(result: dict[str, Any]) -> str:
    found = f"{quantity(result['negatives'], 'hard negative')} of {quantity(result['clips'], 'clip')}: {result['out']}"
    if result["negatives"]:
        return found
    return f"{found}\n  every caption is of the clip's kin or resembles one of its own: a higher --threshold keeps some"
