"""``push``: a model on the Hugging Face hub, with a card that says what it was trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.schema import CARD_LEAKS
from training.commands.arguments import add_model, add_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Publish an export on the Hugging Face hub, or write what would be published into a folder. Its card lists the "
        "splits that it was trained on, with their clips, hours and licences, and its validation figures with their "
        "protocol. `training.Earshot.from_pretrained(NAME)` opens it."
    )
    add_model(parser)
    add_shards(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--to", metavar="OWNER/NAME", help="the repository on the hub, which is made if it does not exist"
    )
    target.add_argument("--out", type=Path, metavar="DIR", help="write into this new folder instead of uploading")
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="the licence of the weights, as the hub spells it, such as cc-by-4.0; by default the card names none",
    )
    parser.add_argument(
        "--leaks",
        type=Path,
        metavar="FILE",
        help="what `earshot leaks --annotation FILE` wrote: the card then says which evaluation clips training held",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository that only its owner sees")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.shards.manifest import Manifest
    from training.models.earshot import Earshot
    from training.models.sources import training_sources

    if args.out is not None and args.out.exists():
        raise InputError("the folder exists already", file=args.out, remedy="name a new folder")
    model = Earshot.open(args.checkpoint, args.trust_code)
    manifest = Manifest.open(args.shards)
    model.sources = training_sources(manifest, model.retriever.recipe.data, (model.origin or {}).get("plan"))
    model.licence = args.licence
    model.leaks = None if args.leaks is None else _annotation(args.leaks)
    where = model.publish(args.to, args.private) if args.out is None else model.save_whole(args.out)
    return {"published": where, "clips": sum(source.clips for source in model.sources)}


def _annotation(file: Path) -> dict[str, Any]:
    remedy = "write it with `earshot leaks OUT --against EVAL --annotation FILE`"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("cannot be read as the annotation of leaks", file=file, remedy=remedy) from error
    if not isinstance(found, dict) or set(found) != {CARD_LEAKS} or not isinstance(found[CARD_LEAKS], list):
        raise InputError("the file does not hold an annotation of leaks", file=file, remedy=remedy)
    return found


def show(result: dict[str, Any]) -> str:
    return f"{result['published']}: a model that was trained on {quantity(result['clips'], 'clip')}"
