"""``search``: find sounds by describing them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.shards.manifest import Manifest
from training.models.hub import open_model
from training.search.index import FIRST, search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="an export, a checkpoint, or a run's folder")
    parser.add_argument("query", nargs="+", help='what to look for, e.g. "a dog barks"')
    parser.add_argument("--shards", required=True, help="the build: a folder or a URL")
    parser.add_argument("--split", help="dataset/split or dataset; default: every clip of the build")
    parser.add_argument("--top", type=int, default=10, help="how many sounds to show for each query")
    parser.add_argument(
        "--first",
        type=int,
        default=FIRST,
        help="clips that a head with attention scores exactly for each query, the nearest by vectors; 0: every clip",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    retriever = open_model(args.checkpoint)
    manifest = Manifest.open(args.shards)
    return {"results": search(retriever, manifest, args.query, args.split, args.top, first=args.first)}


def show(result: dict[str, Any]) -> str:
    lines = []
    for query, found in result["results"].items():
        lines.append(query)
        for place, hit in enumerate(found, 1):
            caption = hit["captions"][0] if hit["captions"] else ""
            lines.append(f"{place:4}. {hit['score']:.4f}  {hit['clip_id']}  ({hit['shard']})  {caption}")
    return "\n".join(lines)
