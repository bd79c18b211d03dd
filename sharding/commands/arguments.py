"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner, Runner
from sharding.common.storage import Storage
from sharding.sources import DATASETS

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?([eE]\d+)?)\s*(?P<prefix>[kKMGT]?)(?P<binary>i?)B?")


def size(text: str) -> int:
    """Bytes: ``1e9``, ``500MB``, ``2GiB``."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}; write 1e9, 500MB or 2GiB")
    base = 1024 if found["binary"] else 1000
    number = float(found["number"]) * base ** " KMGT".index(found["prefix"].upper() or " ")
    if not 1 <= number < 1 << 63:
        raise argparse.ArgumentTypeError(f"not a size of a file: {text!r}")
    return int(number)


def absolute(path: str) -> str:
    """A folder as other processes and machines find it; an address of an object store loses a slash at its end."""
    place = Storage(path)
    return place.url if "://" in path else str(Path(path).expanduser().resolve())


def on_this_machine(text: str) -> Path:
    """A path that is no address."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a path on this machine: {text!r}")
    return Path(text)


def add_datasets(parser: argparse.ArgumentParser, title: str) -> None:
    """``--clotho DIR`` and so on, and ``--source NAME=DIR``."""
    inputs = parser.add_argument_group(title)
    for name in DATASETS:
        inputs.add_argument(f"--{name}", metavar="DIR", help=f"{name} as it is published")
    inputs.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="your own sounds: a folder with clips.csv or clips.jsonl (path, captions, ...); may be repeated",
    )


def datasets_of(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """(published datasets, generic sources): name to folder; relative folders count from here."""
    roots = {name: absolute(getattr(args, name)) for name in DATASETS if getattr(args, name)}
    sources: dict[str, str] = {}
    for text in args.source:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise InputError("--source takes NAME=DIR", value=text, remedy="write --source mine=/path/to/folder")
        if name in sources:
            raise InputError("two sources of one name", value=name, remedy="give each source its own name")
        sources[name] = absolute(folder)
    return roots, sources


def add_runner(parser: argparse.ArgumentParser) -> None:
    """``--workers``.  A program that has other runners as well replaces the default of ``make_runner``."""
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default 1)")
    parser.set_defaults(make_runner=lambda args: LocalRunner(args.workers))


def runner_of(args: argparse.Namespace) -> Runner:
    """Where the work runs."""
    runner: Runner = args.make_runner(args)
    return runner
