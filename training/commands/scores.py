"""``scores``: write every query's score for every clip of a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, open_build
from training.commands.fit import only_first_rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Score every caption of a split against every clip of it, and write the scores with their ids to a folder. "
        "`evaluate`, `compare`, `ensemble` and `submit` read it, and a recipe can name it among its teachers. If it is "
        "killed, the same command continues."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument("--split", required=True, metavar="SPLIT", help="the split, for example clotho/evaluation")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder, local or s3://")
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="CSV",
        help="a table with the column query, such as DCASE 2025's metadata_eval.csv: its queries are scored too",
    )
    parser.add_argument(
        "--queries",
        type=Path,
        metavar="CSV",
        help="a table with the column caption or query, such as the challenge's retrieval_captions.csv: score these "
        "instead of the captions, which the clips then need not have",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips are encoded at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.engine.launch import ranks
    from training.evaluation.relevance import open_queries, open_relevance
    from training.evaluation.scores.writing import ScoringSettings, write_scores
    from training.models.hub import open_model

    if args.batch < 1:
        raise InputError("--batch must be at least 1", value=args.batch)
    if args.relevance and args.queries:
        raise InputError("--relevance adds queries to the captions, --queries replaces them", remedy="give one of them")
    queries = None if args.queries is None else open_queries(args.queries)
    relevance = None if args.relevance is None else open_relevance(args.relevance)
    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    settings = ScoringSettings(str(args.checkpoint), args.split, args.batch, relevance, queries)
    with ranks() as group:
        result = write_scores(retriever, manifest, settings, args.out, group)
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    state = f"{quantity(result['written'], 'part')} written" if result["written"] else "all were there"
    queries = quantity(result["queries"], "query", "queries")
    return f"{queries} x {quantity(result['clips'], 'clip')}: {result['out']} ({state})"
