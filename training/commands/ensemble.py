"""``ensemble``: means of the scores of several systems, in every combination."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.commands.arguments import add_trust_code, open_build
from training.commands.compare import named
from training.commands.fit import only_first_rank

SHOWN = ("text_to_audio_multiple", "text_to_audio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure the mean of the scores of systems, for every combination of them (Calvet and Toledano 2025, table 3). "
        "A system is a model, or a folder that `scores` wrote. The scores of models are written first, into --scores; "
        "if that is killed, the same command continues. With --validation or --validation-split, weights are chosen "
        "there, and only there, and measured on the other split as well."
    )
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="SYSTEM",
        help="runs, exports, published models, or folders that `scores` wrote; or NAME=SYSTEM; two to eight",
    )
    parser.add_argument("--shards", metavar="OUT", help="the build that models are measured on: a folder or a URL")
    parser.add_argument(
        "--split", metavar="SPLIT", help="the split that models are measured on, for example clotho/evaluation"
    )
    parser.add_argument("--scores", metavar="FOLDER", help="where the scores of models are written, local or s3://")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips are encoded at once (default: 32)"
    )
    add_trust_code(parser, "models")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--validation",
        nargs="+",
        metavar="FOLDER",
        help="scores of the same systems, in the same order, on another split, on which weights are chosen",
    )
    weights.add_argument(
        "--validation-split",
        metavar="SPLIT",
        help="the split on which weights are chosen, for example clotho/validation, where every system is a model",
    )
    parser.add_argument(
        "--relevance", type=Path, metavar="CSV", help="a table of every relevant clip of a query, as for `evaluate`"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="write the scores of all systems together, weighted if weights were chosen"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.evaluation.relevance import open_relevance

    systems = _systems(args.systems)
    table = None if args.relevance is None else open_relevance(args.relevance)
    models = _models(systems, args)
    if not models:
        return _measured(systems, args.validation, table, args.out)
    from training.engine.launch import ranks

    with ranks() as group:
        written = _write_scores(models, args, table, group)
        result = {}
        if group.rank == 0:
            validation = args.validation
            if args.validation_split:
                validation = [written[args.validation_split][name] for name in systems]
            result = _measured(systems | written[args.split], validation, table, args.out)
    return only_first_rank(result, group)


def _systems(words: list[str]) -> dict[str, str]:
    """The place of each system by its name."""
    from training.evaluation.scores.ensembles import MOST

    found = named(words)
    several = next((name for name, places in found.items() if len(places) != 1), None)
    if several is not None:
        raise InputError("an ensemble takes one folder or model of each system", value=several)
    if not 2 <= len(found) <= MOST:
        raise InputError(f"an ensemble has 2 to {MOST} systems", value=len(found))
    return {name: places[0] for name, places in found.items()}


def _models(systems: Mapping[str, str], args: argparse.Namespace) -> dict[str, str]:
    """The systems that are models; ``InputError`` if an option is missing, or is not for these systems."""
    from training.evaluation.scores.files import is_scores

    models = {name: place for name, place in systems.items() if not is_scores(place, unfinished=True)}
    if args.batch < 1:
        raise InputError("--batch must be at least 1", value=args.batch)
    given = {"--shards": args.shards, "--split": args.split, "--scores": args.scores}
    missing = [option for option, value in given.items() if value is None]
    if models and missing:
        name, place = next(iter(models.items()))
        what = f"{name} is no folder of scores; a model is scored with --shards OUT, --split SPLIT and --scores FOLDER"
        raise InputError(what, value=place, remedy=f"give {', '.join(missing)}, or name a folder that `scores` wrote")
    if args.validation_split is not None:
        scored = next((name for name in systems if name not in models), None)
        if scored is not None:
            what = f"{scored} is a folder of scores, and no model is known that would score the validation split"
            raise InputError(what, value=systems[scored], remedy="name the models, or give --validation FOLDER ...")
        if args.validation_split == args.split:
            what, remedy = "weights would be chosen on the split that they are measured on", "name another split"
            raise InputError(what, value=args.split, remedy=remedy)
    awkward = next((name for name in models if "/" in name or name.startswith(".")), None)
    if awkward is not None:
        raise InputError("a model's scores cannot have a folder of this name", value=awkward, remedy="NAME=MODEL")
    return models


def _write_scores(models: Mapping[str, str], args: argparse.Namespace, table: Any, group: Any) -> dict[str, Any]:
    """Score the splits with each model; the folders by split and by name.  What is there already is not done again."""
    from training.evaluation.scores.writing import ScoringSettings, write_scores
    from training.models.hub import open_model

    manifest = open_build(args.shards, args.split, args.validation_split)
    relevance = {args.split: table} | ({args.validation_split: None} if args.validation_split else {})
    folders: dict[str, dict[str, str]] = {split: {} for split in relevance}
    for name, place in models.items():
        retriever = open_model(place, args.trust_code)
        for split, queries in relevance.items():
            folder = f"{args.scores.rstrip('/')}/{split.replace('/', '-')}/{name}"
            settings = ScoringSettings(place, split, args.batch, queries)
            write_scores(retriever, manifest, settings, folder, group)
            folders[split][name] = folder
        del retriever  # before the next one is loaded
    return folders


def _measured(folders: Mapping[str, str], validation: list[str] | None, table: Any, out: str | None) -> dict[str, Any]:
    """The figures of every combination of scores, and of the weights that are chosen on the validation split."""
    from training.evaluation.figures import figures, multiple_of, rank_all, require_truth
    from training.evaluation.scores.comparing import common_questions
    from training.evaluation.scores.ensembles import Blended, all_subsets, choose_weights, write_blend
    from training.evaluation.scores.files import ScoreFile

    files = {name: ScoreFile.open(folder) for name, folder in folders.items()}
    questions = common_questions(list(files.values()))
    if not out:  # scores of a challenge's queries can be written together, but not measured
        require_truth(questions, table, next(iter(folders.values())))
    result: dict[str, Any] = {"combinations": all_subsets(files, table), "split": questions.split}
    weights = (1 / len(files),) * len(files)
    if validation:
        chosen_on = _validation(validation, files)
        weights, reached = choose_weights(chosen_on)
        result["weights"] = dict(zip(files, weights, strict=True)) | {"validation mAP@10": reached}
        result["validation"] = next(iter(chosen_on.values())).questions.split
    if out:
        write_blend(files, weights, out)
        result["out"] = out
    if validation:
        multiple = None if table is None else multiple_of(questions, table)
        blended = Blended(list(files.values()), weights)
        result["combinations"]["chosen weights"] = figures(
            rank_all(blended.blocks, questions, multiple), questions, multiple
        )
    return result


def _validation(folders: list[str], files: Any) -> Any:
    from training.evaluation.figures import require_truth
    from training.evaluation.scores.files import ScoreFile

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
    lines: list[str] = [
        f"{result['split']}" + (f", weights of {result['validation']}" if "weights" in result else ""),
        "",
    ]
    measured = next(iter(found.values()))
    forward = [task for task in SHOWN if task in measured]
    for task in forward or [task for task in ("audio_to_text",) if task in measured]:
        lines += [task.replace("_", " "), " " * width + "".join(f"{name:>9}" for name in MEASURED)]
        for name, figures in found.items():
            lines.append(f"{name:{width}}" + "".join(f"{100 * figures[task][each]:9.2f}" for each in MEASURED))
        lines.append("")
    if "weights" in result:
        lines.append("weights: " + ", ".join(f"{name} {value:.4g}" for name, value in result["weights"].items()))
    if "out" in result:
        lines.append(f"scores: {result['out']}")
    return "\n".join(lines).rstrip()
