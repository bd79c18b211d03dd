"""``demo-corpus``: synthesise a small corpus in the layouts of the published datasets."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sharding.commands.arguments import describe, on_this_machine
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from sharding.demo.synthesis import synthesise

_ABOUT = """Synthesise a small corpus in the layouts of Clotho, AudioCaps, WavCaps and TACOS.

The corpus has overlapping and broken clips on purpose.  DIR/truth.json lists them, so that a build can be checked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    parser.add_argument(
        "out", type=on_this_machine, metavar="DIR", help="a new or empty folder, or a corpus to be replaced"
    )
    parser.add_argument("--seed", type=int, default=0, help="a different seed gives different recordings (default: 0)")
    parser.add_argument(
        "--clips", type=int, default=600, help="about how many clips the whole corpus has (default: 600)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    print(f"synthesising about {args.clips} clips, ten or more a second", file=sys.stderr, flush=True)
    truth = synthesise(args.out, args.seed, args.clips)
    return {
        "out": str(args.out),
        "clips": truth.clips,
        "overlaps": len(truth.same_recording),
        "defects": len(truth.defects),
    }


def show(result: dict[str, Any]) -> str:
    rows = [f"  {name:24} {count:6}" for name, count in result["clips"].items()]
    total = sum(result["clips"].values())
    planted = f"{quantity(result['overlaps'], 'planted overlap')} and {quantity(result['defects'], 'broken clip')}"
    return page([f"{quantity(total, 'clip')} in {result['out']}, with {planted} (truth.json):", *rows])
