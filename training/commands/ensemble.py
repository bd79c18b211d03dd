"""``ensemble``: means of the scores of several systems, in every combination."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.commands.compare import named

SHOWN = ("text_to_audio_multiple", "text_to_audio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure the mean of the scores of systems, for every combination of them (Calvet and Toledano 2025, table 3). "
        "With --validation, weights are chosen there, and only there, and measured here as well."
    )
    parser.add_argument(
        "systems", nargs="+", metavar="SYSTEM", help="folders that `scores` wrote, or NAME=FOLDER; two to eight"
    )
    parser.add_argument(
        "--validation",
        nargs="+",
        metavar="FOLDER",
        help="scores of the same systems, in the same order, on another split, on which weights are chosen",
    )
    parser.add_argument("--relevance", type=Path, metavar="CSV", help="as for `evaluate`")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write the scores of all systems together, weighted if weights were chosen"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.evaluation.ensembles import Blended, all_subsets, choose_weights, write_blend
    from training.evaluation.relevance import open_relevance
    from training.evaluation.score_files import ScoreFile
    from training.evaluation.scores import figures, multiple_of, rank_all, require_truth

    folders = named(args.systems)
    several = next((name for name, found in folders.items() if len(found) != 1), None)
    if several is not None:
        raise InputError("an ensemble takes one folder of each system", value=several)
    files = {name: ScoreFile.open(found[0]) for name, found in folders.items()}
    table = None if args.relevance is None else open_relevance(args.relevance)
    if not args.out:  # scores of a challenge's queries can be written together, but not measured
        require_truth(next(iter(files.values())).questions, table, folders[next(iter(files))][0])
    result: dict[str, Any] = {"combinations": all_subsets(files, table)}
    weights = (1 / len(files),) * len(files)
    if args.validation:
        weights, reached = choose_weights(_validation(args.validation, files))
        result["weights"] = dict(zip(files, weights, strict=True)) | {"validation mAP@10": reached}
    if args.out:
        write_blend(files, weights, args.out)
        result["out"] = args.out
    if args.validation:
        questions = next(iter(files.values())).questions
        multiple = None if table is None else multiple_of(questions, table)
        blended = Blended(list(files.values()), weights)
        result["combinations"]["chosen weights"] = figures(
            rank_all(blended.blocks, questions, multiple), questions, multiple
        )
    return result


def _validation(folders: list[str], files: Any) -> Any:
    from training.evaluation.score_files import ScoreFile
    from training.evaluation.scores import require_truth

    if len(folders) != len(files):
        raise InputError("--validation names as many folders as there are systems", value=len(folders))
    found = {name: ScoreFile.open(folder) for name, folder in zip(files, folders, strict=True)}
    for name, file in found.items():
        require_truth(file.questions, None, file.storage.name(""))
        if set(file.questions.clips) & set(files[name].questions.clips):
            raise InputError(
                "weights would be chosen on clips that they are measured on",
                file=file.storage.name(""),
                remedy="name the scores of a validation split",
            )
        if file.head.get("fingerprint") != files[name].head.get("fingerprint"):
            raise InputError(
                f"these scores are of another model than {name}",
                file=file.storage.name(""),
                remedy="name the folders in the order of the systems",
            )
    return found


def show(result: dict[str, Any]) -> str:
    from training.evaluation.metrics import MEASURED

    found = result["combinations"]
    width = max(len(name) for name in found) + 2
    lines: list[str] = []
    for task in SHOWN:
        if task not in next(iter(found.values())):
            continue
        lines += [task.replace("_", " "), " " * width + "".join(f"{name:>9}" for name in MEASURED)]
        for name, figures in found.items():
            lines.append(f"{name:{width}}" + "".join(f"{100 * figures[task][each]:9.2f}" for each in MEASURED))
        lines.append("")
    if "weights" in result:
        lines.append("weights: " + ", ".join(f"{name} {value:.4g}" for name, value in result["weights"].items()))
    if "out" in result:
        lines.append(f"scores: {result['out']}")
    return "\n".join(lines).rstrip()
