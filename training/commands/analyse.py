"""``analyse``: one page about what a model has learned."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from training.commands.arguments import add_model, add_shards, open_build, require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write one HTML page about a model on a split, which opens from disk: where texts and sounds lie, matched "
        "against mismatched distances, every caption with its rank and what the model preferred, players, "
        "and where in the clip the attention looks. UMAP needs `pip install earshot[analysis]`."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument("--split", required=True, metavar="SPLIT", help="the split, for example clotho/evaluation")
    parser.add_argument("--out", required=True, metavar="HTML", help="the page to write")
    parser.add_argument(
        "--examples", type=int, default=24, metavar="N", help="how many captions are shown with sound (default: 24)"
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips are encoded at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.analysis.page import analyse
    from training.models.hub import open_model

    if args.batch < 1 or args.examples < 0:
        raise InputError("--batch must be at least 1, and --examples 0 or more", value=(args.batch, args.examples))
    require_file(args.out)
    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    return analyse(retriever, manifest, args.split, args.out, args.examples, args.batch)


def show(result: dict[str, Any]) -> str:
    test = result["distances"]
    lines = [f"matched and mismatched pairs are {test['d']:.2f} standard deviations apart (p = {test['p']:.2g})"]
    for name, figures in result["spaces"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    return "\n".join([*lines, f"page: {result['out']}"])
