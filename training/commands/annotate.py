"""``annotate``: write long and short captions and tags for clips, beside the shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from training.commands.arguments import add_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write annotations of the clips of a split: a long and a short caption, and tags. A recipe reads them with "
        "data.annotations; the shards do not change. What is not worth keeping is left out and counted. If it is "
        "killed, the same command continues."
    )
    add_shards(parser)
    parser.add_argument(
        "--split", required=True, metavar="SPLIT", help="the split, for example wavcaps/train, or wavcaps"
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--model",
        metavar="SOURCE",
        help="a language model of transformers, by name or folder; one with an audio tower, such as Qwen2.5-Omni, "
        "hears the clips, others rewrite what is known of them",
    )
    who.add_argument(
        "--rules", action="store_true", help="write what is known of a clip in three lengths; needs no model"
    )
    who.add_argument(
        "--audioverse", type=Path, metavar="JSON", help="read annotations in the form that AuroLA's authors publish"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder, local or s3://")
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="how many clips are annotated at once (default: 16)"
    )
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.curation.run import Work, annotate, convert

    if args.batch < 1:
        raise InputError("--batch must be at least 1", value=args.batch)
    annotator = "audioverse" if args.audioverse else "rules" if args.rules else args.model
    work = Work(args.shards, args.split, annotator, args.out, args.batch)
    if args.audioverse is not None:
        return convert(work, args.audioverse)
    return annotate(work, runner_of(args))


def show(result: dict[str, Any]) -> str:
    from training.curation.annotations import REASONS

    lines = [f"{quantity(result['clips'], 'clip')}, {result['tagged'] or 'none'} of them with tags: {result['out']}"]
    lines += [f"  {count} left out: {REASONS[reason]}" for reason, count in sorted(result["removed"].items())]
    if result.get("unknown"):
        lines.append(f"  {quantity(result['unknown'], 'item is', 'items are')} of no clip of the build")
    return "\n".join(lines)
