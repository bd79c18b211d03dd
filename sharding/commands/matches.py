"""``matches``: find out whether two sound files hold the same recording."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from sharding.audio import AudioError, decode_segment
from sharding.commands.arguments import describe, on_this_machine
from sharding.common.errors import InputError
from sharding.common.terminal import page
from sharding.dedup.comparing import compare_waves
from sharding.dedup.fingerprint import RATE
from sharding.dedup.grouping import relations
from sharding.dedup.waveform import BLOCK_S, is_silent
from sharding.rows import MatchRow, rows

_ABOUT = """Find out whether two sound files hold the same recording.

The command prints each piece of evidence and the outcome: same, different or undecided."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    parser.add_argument(
        "--pairs", nargs=2, type=on_this_machine, metavar=("A", "B"), required=True, help="two sound files"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Decode both files and compare them."""
    a, b = map(_decoded, args.pairs)
    table = compare_waves(a, b)
    relation = relations(table)[0]
    return {
        "a": str(args.pairs[0]),
        "b": str(args.pairs[1]),
        "a_duration_s": len(a) / RATE,
        "b_duration_s": len(b) / RATE,
        "outcome": relation.by_waveform,
        "rows": [_evidence(match) for match in rows(table, MatchRow)],
    }


def show(result: dict[str, Any]) -> str:
    lines = [
        f"a  {result['a']}  ({result['a_duration_s']:.2f} s)",
        f"b  {result['b']}  ({result['b_duration_s']:.2f} s)",
        "",
        f"{'method':12} {'b starts at':>12} {'overlap':>9} {'score':>8}  outcome",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['method']:12} {row['offset_s']:10.3f} s {row['overlap_s']:7.2f} s "
            f"{row['score']:8.3f}  {row['outcome']}"
        )
    return page([*lines, "", f"outcome: {result['outcome']}"])


def _evidence(match: MatchRow) -> dict[str, Any]:
    return {name: value for name, value in match._asdict().items() if name not in ("a", "b")}


def _decoded(path: Path) -> np.ndarray:
    try:
        data = path.read_bytes()
        if not data:
            raise AudioError("empty", "0 bytes")
        wave, rate = decode_segment(data)
        wave = soxr.resample(wave, rate, RATE) if rate != RATE else wave
        if len(wave) < BLOCK_S * RATE:
            raise AudioError("too_short", f"{len(wave) / RATE:.3f} s; a comparison needs {BLOCK_S} s or more")
        if is_silent(wave):
            raise AudioError("silent", "there is no sound between 250 and 3,500 Hz, where recordings are compared")
    except OSError as error:
        raise InputError(error.strerror or str(error), file=path, remedy="give two readable files") from error
    except AudioError as error:
        raise InputError(str(error), file=path, remedy="give two sound files") from error
    return wave
