"""``leaks``: which clips of evaluation sets the training clips of a build hold."""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from sharding.build.benchmark_leaks import leaks
from sharding.commands.arguments import absolute, add_build, describe, on_this_machine
from sharding.common.errors import InputError
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from sharding.fates.benchmark_leaks import EVIDENCE, Benchmark, Held
from sharding.schema import CARD_LEAKS

_SHOWN = 10  # examples
_ABOUT = """Say which clips of evaluation sets the training clips of a build hold, by sound and by id.

Training clips are the written clips outside of protected splits.  Of a dataset that the build contains, its protected
splits are the evaluation sets; of another published one, the splits that builds protect by default; of any other, every
split.  The build is only read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar="EVAL",
        help="evaluation sets: the name of a dataset that the build contains (clotho), or NAME=DIR for others: a "
        "published dataset by its name (audiocaps=DIR), or sounds of your own with a table clips.csv",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="keep here what was decoded and compared, so that the same command goes on where it was interrupted; "
        "by default it is thrown away",
    )
    parser.add_argument(
        "--csv",
        type=on_this_machine,
        metavar="FILE",
        help="write a table of every evaluation clip that the training clips hold",
    )
    parser.add_argument(
        "--annotation",
        type=on_this_machine,
        metavar="FILE",
        help="write the result as the annotation of a model card (YAML), which `push --leaks FILE` adds to a card",
    )
    add_runner(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    inside, outside = _evaluation_sets(args.against)
    out = absolute(args.out)
    if args.work is not None:
        benchmarks, held = leaks(out, inside, outside, absolute(args.work), runner_of(args))
    else:
        with tempfile.TemporaryDirectory(prefix="earshot-leaks-") as work:
            benchmarks, held = leaks(out, inside, outside, work, runner_of(args))
    if args.csv is not None:
        _write(args.csv, _table(held))
    if args.annotation is not None:
        _write(args.annotation, annotation(benchmarks))
    examples = [each._asdict() for each in held]
    return {"out": out, "benchmarks": benchmarks, "held": len(held), "clips": examples}


def show(result: dict[str, Any]) -> str:
    columns = ("clips", "compared", *EVIDENCE)
    lines = [f"{'':32}" + "".join(f"{name:>11}" for name in columns)]
    for row in result["benchmarks"]:
        numbers = (row["clips"], row["compared"], *row["held"].values())
        lines.append(f"{row['name']:32}" + "".join(f"{number:>11}" for number in numbers))
    lines += ["", *(f"{name}: {meaning}" for name, meaning in EVIDENCE.items())]
    if result["clips"]:
        lines += ["", f"{quantity(result['held'], 'clip is', 'clips are')} held; the first ones:"]
    for each in result["clips"][:_SHOWN]:
        overlap = f", {each['overlap_s']:.2f} s in common" if each["overlap_s"] else ""
        lines.append(f"  {each['clip']}: {each['evidence']}, in {each['training_clip']}{overlap}")
    return page(lines)


def annotation(benchmarks: list[Benchmark]) -> str:
    """The table as part of a model card's metadata: how many clips of each evaluation set training data hold.

    JSON, which is YAML too.
    """
    rows = [
        {"name": row["name"], "clips": row["clips"], "compared": row["compared"], "held_by": row["held"]}
        for row in benchmarks
    ]
    return json.dumps({CARD_LEAKS: rows}, indent=2) + "\n"


def _evaluation_sets(words: list[str]) -> tuple[list[str], dict[str, str]]:
    inside, outside = [], {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not name or (equals and not folder) or name in inside or name in outside:
            raise InputError("--against takes NAME or NAME=DIR, each name once", value=word)
        if equals:
            outside[name] = absolute(folder)
        else:
            inside.append(name)
    return inside, outside


def _table(held: list[Held]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Held._fields)
    writer.writerows(held)
    return text.getvalue()


def _write(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.writing")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.rename(file)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=file) from error
