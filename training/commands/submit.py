"""``submit``: the table of predictions that the DCASE challenge takes."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the similarities of scores as the table that DCASE's task on language-based audio retrieval takes, and "
        "check what was written: every query once, every file, finite numbers."
    )
    parser.add_argument("scores", metavar="SCORES", help="the folder that `scores` or `ensemble` wrote")
    parser.add_argument(
        "--out", required=True, metavar="CSV", help="the file to write, or with --check the one to check"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; check the file against the scores' queries"
    )
    parser.add_argument(
        "--year",
        type=int,
        choices=(2024, 2025),
        default=2025,
        help="2025: the similarity to every file (default); 2024: the ten best files",
    )
    parser.add_argument(
        "--extension",
        default=".wav",
        metavar="EXT",
        help="the extension of the audio files in the table (default: .wav); '' for none",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from sharding.common.storage import located
    from training.evaluation.figures import BACKWARD
    from training.evaluation.scores.files import ScoreFile
    from training.evaluation.scores.submission import (
        check_predictions,
        file_names,
        prediction_rows,
        ranked_rows,
        to_csv,
    )

    scores = ScoreFile.open(args.scores)
    questions = scores.questions
    if questions.direction == BACKWARD:
        what, remedy = "the challenge ranks sounds, and these scores rank captions", "name those of text to audio"
        raise InputError(what, file=args.scores, remedy=remedy)
    names = file_names(questions.clips, questions.split, args.extension)
    if args.check and args.year != 2025:
        raise InputError("only tables of 2025 can be checked", value=args.year, remedy="leave out --check")
    storage, name = located(args.out)
    if not args.check:
        require_file(args.out)
        rows = prediction_rows if args.year == 2025 else ranked_rows
        text = to_csv(rows(scores, names))
    else:
        try:
            text = storage.read(name).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot be read as text", file=args.out) from error
    if args.year == 2025:
        check_predictions(text, args.out, questions.texts, names)
    if not args.check:
        storage.write(name, text.encode())
    return {"out": args.out, "files": len(names), "queries": len(set(questions.texts))}


def show(result: dict[str, Any]) -> str:
    return f"{quantity(result['queries'], 'query', 'queries')}, {quantity(result['files'], 'file')}: {result['out']}"
