"""``compare``: several systems on one split, with intervals and tests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError

COLUMN = 25  # characters of a figure with its interval, of which 23 are needed: 100.00 (100.00, 100.00)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare systems by the folders that `scores` wrote for them. Each figure is shown with the interval in which "
        "it lies for 95 % of such sets of queries (the captions of a clip are drawn together). Every system is tested "
        "against the first one on the same queries; p is adjusted for the number of systems (Holm)."
    )
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="SYSTEM",
        help="a folder of scores; or NAME=FOLDER,FOLDER,... for a system of several seeds: their mean and range",
    )
    parser.add_argument(
        "--relevance", type=Path, metavar="CSV", help="a table of every relevant clip of a query, as for `evaluate`"
    )
    parser.add_argument(
        "--measure", default="mAP@10", metavar="M", help="the figure that is tested, for example R@1 (default: mAP@10)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.evaluation.metrics import MEASURED
    from training.evaluation.relevance import open_relevance
    from training.evaluation.scores.comparing import compare
    from training.evaluation.scores.files import ScoreFile

    if args.measure not in MEASURED:
        raise InputError("--measure names no figure", value=args.measure, remedy="one of " + ", ".join(MEASURED))
    systems = {name: [ScoreFile.open(folder) for folder in folders] for name, folders in named(args.systems).items()}
    table = None if args.relevance is None else open_relevance(args.relevance)
    return compare(systems, table) | {"measure": args.measure}


def named(words: list[str]) -> dict[str, list[str]]:
    """The folders of each system: ``NAME=FOLDER,FOLDER``, or a folder, whose last part is then the name."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, folders = word.partition("=")
        is_folder = Path(word).is_dir()  # whose own name may have a `=` or a comma
        name = Path(word).name if is_folder or not equals else name
        if not name:
            raise InputError("a system has no name", value=word, remedy="name it: NAME=FOLDER")
        if name in found:
            raise InputError("two systems have one name", value=word, remedy="name each one: NAME=FOLDER")
        found[name] = [word] if is_folder or not equals else _folders(folders)
        if not found[name]:
            raise InputError("a system has no folder", value=word, remedy="name it: NAME=FOLDER")
    return found


def _folders(text: str) -> list[str]:
    """The folders of ``FOLDER,FOLDER,...``.

    A comma may belong to a name: neighbouring parts are one folder where there is a folder of that name.
    """
    parts, found = text.split(","), []
    while parts:
        longest = next((n for n in range(len(parts), 1, -1) if Path(",".join(parts[:n])).is_dir()), 1)
        found.append(",".join(parts[:longest]))
        del parts[:longest]
    return [folder for folder in found if folder]


def show(result: dict[str, Any]) -> str:
    systems = result["systems"]
    width = max(len(name) for name in systems) + 2
    tasks = [task for task in next(iter(systems.values())) if task != "seeds"]
    lines = [result["split"]]
    for task in tasks:
        measures = list(next(iter(systems.values()))[task])
        lines += ["", task.replace("_", " "), " " * width + "".join(f"{name:>{COLUMN}}" for name in measures)]
        for name, found in systems.items():
            lines.append(f"{name:{width}}" + "".join(f"{_interval(found[task][each]):>{COLUMN}}" for each in measures))
            if found["seeds"] > 1:
                cells = [f"{100 * found[task][m]['least']:.2f}..{100 * found[task][m]['most']:.2f}" for m in measures]
                lines.append(f"  {found['seeds']} seeds".ljust(width) + "".join(f"{cell:>{COLUMN}}" for cell in cells))
        for name, difference in result["differences"].items():
            row = difference[task][result["measure"]]
            lines.append(
                f"{name}: {result['measure']} {100 * row['mean']:+.2f} "
                f"({100 * row['low']:+.2f} to {100 * row['high']:+.2f}), p = {row['adjusted']:.4f}"
            )
    return "\n".join(lines)


def _interval(row: dict[str, float]) -> str:
    return f"{100 * row['mean']:.2f} ({100 * row['low']:.2f}, {100 * row['high']:.2f})"
