"""``evaluate``: measure retrieval on a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.commands.arguments import add_model, add_shards
from training.commands.fit import only_first_rank

# The prefixes of the figures that are shown, and what each means.
PREFIXES = (
    ("", ""),
    ("pessimistic_", ", relevant last"),
    ("optimistic_", ", relevant first"),
    ("chance_", ", by chance"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure text-to-audio and audio-to-text retrieval among all clips of a split. Each measure is shown as it is "
        "expected when equal scores are put in random order, then with relevant clips last and first among equal "
        "scores, and as chance would give it."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--split", required=True, metavar="SPLIT", help="the split to measure on, for example clotho/evaluation"
    )
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="CSV",
        help="a table with the columns query and audio_filenames that names every relevant clip of a query, such as "
        "DCASE 2025's metadata_eval.csv",
    )
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="clips that a rank encodes at once (32)")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="N",
        help="a head with attention scores only the N candidates of a query exactly that are nearest by their vectors; "
        "0: it scores all of them (default)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.encoding import side_encoder
    from training.evaluation.run import EvaluationSettings, evaluate
    from training.models.hub import open_model
    from training.run.progress import StatusLine

    if args.batch < 1 or args.first < 0:
        raise InputError("--batch counts from 1 and --first from 0, which means all", value=(args.batch, args.first))
    relevance = None if args.relevance is None else _relevance(args.relevance)
    retriever = open_model(args.checkpoint, args.trust_code)
    manifest = Manifest.open(args.shards)
    with ranks() as group:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = side_encoder(retriever.model, retriever.recipe.data, device)
        settings = EvaluationSettings(args.split, args.batch, args.first, relevance)
        line: StatusLine | None = None

        def report(done: int, total: int) -> None:
            nonlocal line
            line = line or StatusLine("batches of clips", total, quiet=group.rank != 0)
            line.update(done)

        result = evaluate(encoder, manifest, settings, group, report)
    return only_first_rank(result, group)


def _relevance(file: Path) -> dict[str, list[str]]:
    """The table of ``--relevance``: the relevant files of each query."""
    from training.evaluation.relevance import read_relevance

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"cannot be read: {reason}", file=file) from error
    return read_relevance(text, file)


def show(result: dict[str, Any]) -> str:
    from training.evaluation.metrics import DIRECTIONS, MEASURED

    lines = [f"{result['split']}: {result['clips']} clips, {result['captions']} captions"]
    lines.append(f"{'':41}" + "".join(f"{name:>9}" for name in MEASURED))
    for direction in (*DIRECTIONS, "text_to_audio_multiple"):
        if direction not in result:
            continue
        for prefix, label in PREFIXES:
            values = "".join(f"{100 * result[direction][prefix + name]:9.2f}" for name in MEASURED)
            lines.append(f"{direction.replace('_', ' ') + label:41}{values}")
    return "\n".join(lines)
