"""``teach``: write the vectors of clips and captions with which a model teaches others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, open_build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the vectors of clips and captions with which a model teaches another one. A recipe names the folder "
        "in distillation.teachers. The model's scores must be dot products, as those of the head dual are."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--split",
        action="append",
        metavar="DATASET/SPLIT",
        help="write vectors of this split; may be repeated (default: every split)",
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="a new folder, or one to replace; local, or s3://BUCKET/FOLDER"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.common.storage import Storage
    from training.models.hub import open_model
    from training.tasks.teacher_vectors import write_teacher

    if Path(args.out).is_file():
        raise InputError("it is a file", file=args.out, remedy="name a folder for --out")
    manifest = open_build(args.shards, *(args.split or ()))
    retriever = open_model(args.checkpoint, args.trust_code)
    return write_teacher(retriever, manifest, args.split, Storage(args.out))


def show(result: dict[str, Any]) -> str:
    what = f"{quantity(result['clips'], 'clip')} and {quantity(result['captions'], 'caption')}"
    return f"{what}, {result['width']} numbers each: {result['out']}"
