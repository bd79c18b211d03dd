"""``index``: make the sounds of a build searchable."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.sizes import quantity, show_hours
from training.commands.arguments import add_model, add_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Encode every window of a build's recordings, so that `earshot search` and `earshot serve` need not do it for "
        "each search. A killed run continues. After `earshot append`, the same command encodes only what is new."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="INDEX",
        help="the folder of the index; an index that is already there is updated",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="SPLIT",
        help="index this split (clotho/evaluation) or dataset (clotho) only; may be repeated",
    )
    parser.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds of a window; short ones find places more exactly (default: as long as the model was trained on)",
    )
    parser.add_argument(
        "--hop", type=float, metavar="S", help="seconds from window to window (default: half of --window)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that encode, each with its own model (default: 1)",
    )
    parser.set_defaults(make_runner=lambda args: LocalRunner(args.workers))


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.common.storage import Storage
    from sharding.shards.manifest import Manifest
    from training.models.hub import open_model
    from training.search.building import make_index, usual_windows
    from training.search.entries import Windows
    from training.search.parts import Source
    from training.search.text_tower import add_text_tower

    if "://" in args.out:
        raise InputError(
            "an index must be in a local folder, not in an object store", value=args.out, remedy="name a folder"
        )
    out = Path(args.out).resolve()  # workers run in other folders
    model = str(Path(args.checkpoint).resolve()) if Path(args.checkpoint).exists() else str(args.checkpoint)
    local = Storage(args.shards).local
    shards = args.shards if local is None else str(local.resolve())
    if str(out) == model:
        raise InputError("--out is the folder of the model", file=args.out, remedy="name another folder")
    manifest, retriever = Manifest.open(shards), open_model(model, args.trust_code)
    windows = usual_windows(retriever)
    if args.window is not None or args.hop is not None:
        length = windows.length_s if args.window is None else args.window
        windows = Windows(length, length / 2 if args.hop is None else args.hop)
    source = Source(model, args.trust_code, shards, tuple(args.split), windows)
    result = make_index(retriever, manifest, source, out, args.make_runner(args))
    return result | {"no_text_tower": add_text_tower(retriever, out)}


def show(result: dict[str, Any]) -> str:
    search = result["search"]
    how = "compares every vector"
    if search["kind"] == "lists":
        found = f"{100 * search['recall']:.1f} % of the ten best of {quantity(search['queries'], 'caption')}"
        how = f"visits {search['probes']} of {search['lists']} lists, which finds {found}"
    length = show_hours(result["seconds"] / 3600)
    loads = f"\na query loads the whole model: {result['no_text_tower']}" if result["no_text_tower"] else ""
    return (
        f"{quantity(result['entries'], 'window')} of {quantity(result['recordings'], 'recording')} ({length}), "
        f"{result['encoded']:,} of them encoded now: {result['out']}\na query {how}{loads}"
    )
