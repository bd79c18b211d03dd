"""``evaluate``: measure retrieval on a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from training.commands.fit import only_first_rank
from training.evaluation.retrieval import DIRECTIONS, MEASURED, read_relevance
from training.evaluation.run import encoders_of, evaluate
from training.models.hub import open_model
from training.run.progress import StatusLine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="an export, a checkpoint, or a run's folder")
    parser.add_argument("--shards", required=True, help="the build: a folder or a URL")
    parser.add_argument("--split", required=True, help="dataset/split, e.g. clotho/evaluation")
    parser.add_argument(
        "--relevance",
        type=Path,
        help="CSV with query,audio_filenames: all relevant clips of a query (DCASE 2025's metadata_eval.csv)",
    )
    parser.add_argument("--batch", type=int, default=32, help="clips that a rank encodes at once")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="candidates of each query that a head with attention scores exactly, the nearest by vectors; 0: all",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.batch < 1 or args.first < 0:
        raise InputError("--batch counts from 1 and --first from 0, which means all", value=(args.batch, args.first))
    relevance = None
    if args.relevance is not None:
        try:
            text = args.relevance.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InputError(f"cannot be read: {reason}", file=args.relevance) from error
        relevance = read_relevance(text, args.relevance)
    retriever = open_model(args.checkpoint)
    manifest = Manifest.open(args.shards)
    from training.engine.step import ranks

    with ranks() as group:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        progress: dict[str, StatusLine] = {}

        def tell(what: str, done: int, total: int) -> None:
            line = progress.setdefault(what, StatusLine(f"batches of {what}", total, quiet=group.rank != 0))
            line.update(done)

        result = evaluate(
            encoders_of(retriever.model, device),
            manifest,
            args.split,
            retriever.recipe.data,
            retriever.audio_input,
            retriever.tokenizer,
            group,
            args.batch,
            relevance,
            tell,
            args.first,
        )
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['split']}: {result['clips']} clips, {result['captions']} captions"]
    lines.append(f"{'':34}" + "".join(f"{name:>9}" for name in MEASURED))
    for direction in (*DIRECTIONS, "text_to_audio_multiple"):
        if direction not in result:
            continue
        for prefix, label in (("", ""), ("pessimistic_", ", ties against"), ("chance_", ", by chance")):
            values = "".join(f"{100 * result[direction][prefix + name]:9.2f}" for name in MEASURED)
            lines.append(f"{direction.replace('_', ' ') + label:34}{values}")
    return "\n".join(lines)
