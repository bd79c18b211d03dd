"""A command for tests: its result, or its error, holds text that is hard to show."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError

TEXT = "Zoë \x1b[2J 犬 \x9b2J half \udcff"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fail", action="store_true")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.fail:
        raise InputError(TEXT, file=TEXT)
    return {"text": TEXT}


def show(result: dict[str, Any]) -> str:
    return f"first line\n{result['text']}"
