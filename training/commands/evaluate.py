"""``evaluate``: measure retrieval on a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, open_build
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
        "scores, and as chance would give it. Where clips share captions, it is shown a second time with every clip of "
        "an equal caption being relevant, and with the most that can be reached for a caption's own clip alone. "
        "Instead of a model, name the folder that `scores` wrote."
    )
    add_model(parser)
    parser.add_argument(
        "--shards", metavar="OUT", help="the build: a folder or a URL; not needed for a folder of scores"
    )
    parser.add_argument("--split", metavar="SPLIT", help="the split to measure on, for example clotho/evaluation")
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="CSV",
        help="a table with the columns query and audio_filenames that names every relevant clip of a query, such as "
        "DCASE 2025's metadata_eval.csv; a column relevances may say how relevant each one is",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips a rank encodes at once (default: 32)"
    )
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="N",
        help="a head with attention scores only the N candidates of a query exactly that are nearest by their vectors; "
        "0: it scores all of them (default)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.evaluation.relevance import open_relevance
    from training.evaluation.scores.files import is_scores

    if args.batch < 1 or args.first < 0:
        raise InputError(
            "--batch must be at least 1, and --first 0 (all clips) or more", value=(args.batch, args.first)
        )
    relevance = None if args.relevance is None else open_relevance(args.relevance)
    if is_scores(args.checkpoint, unfinished=True):
        return _of_scores(args, relevance)
    if args.shards is None or args.split is None:
        raise InputError(
            "a model is evaluated on a split of a build, and none is named",
            remedy="give --shards OUT and --split SPLIT",
        )
    return _of_model(args, relevance)


def _of_scores(args: argparse.Namespace, relevance: Any) -> dict[str, Any]:
    from training.evaluation.figures import figures, multiple_of, rank_all, require_truth
    from training.evaluation.scores.files import ScoreFile

    scores = ScoreFile.open(args.checkpoint)
    if args.split not in (None, scores.questions.split):
        raise InputError(f"these scores are of {scores.questions.split}", file=args.checkpoint, value=args.split)
    if args.first:
        remedy = "leave out --first, or name the model"
        raise InputError("--first chooses what a model scores, and these scores are there already", remedy=remedy)
    require_truth(scores.questions, relevance, args.checkpoint)
    multiple = None if relevance is None else multiple_of(scores.questions, relevance, args.relevance)
    return figures(rank_all(scores.blocks, scores.questions, multiple), scores.questions, multiple)


def _of_model(args: argparse.Namespace, relevance: Any) -> dict[str, Any]:
    from training.engine.launch import ranks
    from training.evaluation.encoding import side_encoder
    from training.evaluation.run import EvaluationSettings, evaluate
    from training.models.hub import open_model
    from training.run.progress import StatusLine

    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    with ranks() as group:
        encoder = side_encoder(retriever.model, retriever.recipe.data)
        settings = EvaluationSettings(args.split, args.batch, args.first, relevance)
        line = StatusLine("batches of clips", 0, quiet=group.rank != 0)
        result = evaluate(encoder, manifest, settings, group, line.report)
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    from training.evaluation.metrics import DIRECTIONS, MEASURED

    lines = [f"{result['split']}: {quantity(result['clips'], 'clip')}, {quantity(result['captions'], 'caption')}"]
    lines.append(f"{'':49}" + "".join(f"{name:>9}" for name in MEASURED))

    def add(label: str, figures: dict[str, float], prefix: str = "") -> None:
        lines.append(f"{label:49}" + "".join(f"{100 * figures[prefix + name]:9.2f}" for name in MEASURED))

    for direction in (*DIRECTIONS, "text_to_audio_multiple"):
        for prefix, label in PREFIXES if direction in result else ():
            add(direction.replace("_", " ") + label, result[direction], prefix)
        if f"{direction}_equal" in result:
            add(direction.replace("_", " ") + ", equal captions count too", result[f"{direction}_equal"])
            add(direction.replace("_", " ") + ", the most that is possible", result[f"{direction}_ceiling"])
    multiple = result.get("text_to_audio_multiple", {})
    lines += [f"{name} {100 * value:.2f}" for name, value in multiple.items() if name.startswith("nDCG")]
    return "\n".join(lines)
