"""``search``: find sounds by describing them."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.commandline import text
from sharding.common.terminal import page
from training.commands.arguments import add_model, add_shards, add_split
from training.search import CANDIDATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Find the clips of a build whose sound a text describes, and show the best ones first."
    add_model(parser)
    parser.add_argument(
        "query", type=text, metavar="TEXT", nargs="+", help='what to look for, for example "a dog barks"'
    )
    add_shards(parser)
    add_split(parser, "search")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many clips to show for each text (10)")
    parser.add_argument(
        "--first",
        type=int,
        default=CANDIDATES,
        metavar="N",
        help=f"a head with attention scores only the N clips exactly that are nearest by their vectors ({CANDIDATES}); "
        "0: it scores every clip",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.shards.manifest import Manifest
    from training.models.hub import open_model
    from training.search.index import search

    retriever = open_model(args.checkpoint, args.trust_code)
    manifest = Manifest.open(args.shards)
    return {"results": search(retriever, manifest, args.query, args.split, args.top, candidates=args.first)}


def show(result: dict[str, Any]) -> str:
    lines = []
    for query, hits in result["results"].items():
        lines.append(query)
        for number, hit in enumerate(hits, 1):
            caption = hit["captions"][0] if hit["captions"] else ""
            lines.append(f"{number:4}. {hit['score']:.4f}  {hit['clip_id']}  ({hit['shard']})  {caption}")
    return page(lines)
