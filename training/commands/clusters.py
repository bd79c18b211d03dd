"""``clusters``: tags that mean the same as one cluster, for Hybrid-NCE."""

from __future__ import annotations

import argparse
from typing import Any

from training.commands.arguments import add_model, require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Join the tags of annotations by k-means over their vectors, and write which cluster each tag belongs to. A "
        "recipe reads the file with data.tags."
    )
    add_model(parser)
    parser.add_argument(
        "--annotations",
        required=True,
        nargs="+",
        metavar="FILE",
        help="annotations.parquet, as `annotate` wrote it; give several files for several splits",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=500,
        metavar="N",
        help="how many clusters to make, at most one for each tag (default: 500)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed by which the first centres are drawn (default: 0)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the JSON file to write")


def run(args: argparse.Namespace) -> dict[str, Any]:
    import json

    from sharding.common.errors import InputError
    from sharding.common.storage import located
    from training.curation.annotations import read_annotations
    from training.curation.clusters import cluster_tags
    from training.curation.mining import caption_vectors
    from training.models.hub import open_model

    require_file(args.out)
    if not 0 <= args.seed < 2**32:
        raise InputError("--seed is a whole number from 0 to 4294967295", value=args.seed)
    tables = [read_annotations(file) for file in args.annotations]
    tags = sorted({tag for table in tables for row in table["tags"].to_pylist() for tag in row})
    if not tags:
        raise InputError("no clip has a tag", file=", ".join(args.annotations))
    retriever = open_model(args.checkpoint, args.trust_code)
    found = cluster_tags(tags, caption_vectors(retriever, tags).numpy(), args.count, args.seed)
    storage, name = located(args.out)
    storage.write(name, json.dumps(found, indent=1, ensure_ascii=False).encode())
    return {"tags": len(tags), "clusters": len({each["cluster_index"] for each in found.values()}), "out": args.out}


def show(result: dict[str, Any]) -> str:
    return f"{result['tags']} tags in {result['clusters']} clusters: {result['out']}"
