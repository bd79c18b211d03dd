"""``python -m sharding demo-corpus``: synthesise a small corpus in the published layouts."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.commands.arguments import on_this_machine
from sharding.demo.synthesis import synthesise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=on_this_machine, metavar="OUT", help="new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other recordings")
    parser.add_argument("--clips", type=int, default=600, help="rough size of the whole corpus")


def run(args: argparse.Namespace) -> dict[str, Any]:
    truth = synthesise(args.out, args.seed, args.clips)
    return {
        "out": str(args.out),
        "clips": truth["clips"],
        "overlaps": len(truth["same_recording"]),
        "defects": len(truth["defects"]),
    }


def show(result: dict[str, Any]) -> str:
    rows = [f"  {name:24} {count:6}" for name, count in result["clips"].items()]
    total = sum(result["clips"].values())
    planted = f"{result['overlaps']} planted overlaps and {result['defects']} broken clips"
    return "\n".join([f"{total} clips in {result['out']}, with {planted} (truth.json):", *rows])
