"""``convert``: an export in the format of another library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.sizes import quantity
from training.commands.arguments import add_model
from training.models.formats import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an export in the format of another library. The result is loaded with that library and compared with "
        "Earshot on recordings of yours; if any number of a vector differs by more than 1e-5, nothing is written."
    )
    add_model(parser)
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="the format to write")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the new folder; it must not exist")
    parser.add_argument(
        "--check",
        required=True,
        metavar="CLIPS",
        help="what to compare on: a folder of sound files, a sound file, or a build of shards",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.models.formats.conversion import convert
    from training.models.formats.proof import read_clips

    proof = convert(args.checkpoint, args.to, args.out, read_clips(args.check), args.trust_code)
    return {
        "out": str(args.out),
        "format": args.to,
        "clips": proof.clips,
        "texts": proof.texts,
        "differences": proof.differences,
        "remarks": proof.remarks,
    }


def show(result: dict[str, Any]) -> str:
    compared = f"{quantity(result['clips'], 'clip')} and {quantity(result['texts'], 'text')}"
    lines = [f"{result['out']}: {result['format']}, compared on {compared}"]
    lines += [f"  largest difference of the {name}: {largest:.1e}" for name, largest in result["differences"].items()]
    return "\n".join(lines + [f"  {remark}" for remark in result["remarks"]])
