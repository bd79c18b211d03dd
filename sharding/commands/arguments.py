"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from sharding.common.errors import InputError
from sharding.common.sizes import parse_size
from sharding.common.storage import Storage
from sharding.sources import DATASETS
from sharding.sources.protected import DEFAULT_PROTECT


def size(text: str) -> int:
    """Bytes: ``1e9``, ``500MB``, ``2GiB``."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def absolute(path: str) -> str:
    """A folder by a name that is valid in other processes and on other machines: an absolute path, or an address.

    An address of an object store loses a slash at its end.
    """
    storage = Storage(path)
    return storage.url if "://" in path else str(Path(path).expanduser().resolve())


def on_this_machine(text: str) -> Path:
    """A path that is not an address of an object store."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a path on this machine: {text!r}")
    return Path(text)


def describe(parser: argparse.ArgumentParser, text: str) -> None:
    """Show ``text`` in the command's help, with its line breaks."""
    parser.description, parser.formatter_class = text, argparse.RawDescriptionHelpFormatter


def add_build(parser: argparse.ArgumentParser, name: str = "out") -> None:
    """``OUT``, a finished build."""
    parser.add_argument(name, metavar="OUT", help="the folder of a finished build: a local path or an s3:// address")


def add_datasets(parser: argparse.ArgumentParser, title: str) -> None:
    """Add ``--clotho DIR`` and so on, and ``--source NAME=DIR``."""
    inputs = parser.add_argument_group(title)
    for name in DATASETS:
        inputs.add_argument(f"--{name}", metavar="DIR", help=f"the folder of {name}, laid out as published")
    inputs.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="sounds of your own under a name that you choose: a folder with a table clips.csv or clips.jsonl, "
        "whose columns path and captions are required; several captions of a clip are a JSON list, columns caption_1, "
        "caption_2, ..., or several rows of one path; without a table, every sound is a clip whose caption "
        "is the words of its path; may be given several times",
    )


def add_follow_links(parser: argparse._ActionsContainer) -> None:
    """``--follow-links``."""
    parser.add_argument(
        "--follow-links",
        action="store_true",
        help="follow symbolic links that lead out of a dataset's folder; without it, their files fail as out_of_root. "
        "Links of a Hugging Face cache to its own files are always followed",
    )


def add_split_by(parser: argparse._ActionsContainer) -> None:
    """``--split-by group`` and ``--split-seed N``."""
    parser.add_argument(
        "--split-by",
        choices=("group",),
        help="group: split each of your own sources that has no splits at random into train (80 %%), validation and "
        "test (10 %% each); clips with the same identity stay together, and training clips that share sound with the "
        "other two are withheld",
    )
    parser.add_argument(
        "--split-seed", type=int, default=0, metavar="N", help="another number gives another random split (default: 0)"
    )


def split_seed_of(args: argparse.Namespace) -> int | None:
    """The seed of the random split that the arguments ask for; None: they ask for none."""
    if args.split_by is None:
        if args.split_seed:
            raise InputError("--split-seed needs --split-by group", value=args.split_seed)
        return None
    if not args.source:
        remedy = "give one: --source NAME=DIR; published datasets have their own splits"
        raise InputError("--split-by group splits sounds of your own, and none are given", remedy=remedy)
    return int(args.split_seed)


def datasets_of(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """The folders of published datasets, and those of the user's own sources, by name."""
    roots = {name: absolute(getattr(args, name)) for name in DATASETS if getattr(args, name)}
    sources: dict[str, str] = {}
    for text in args.source:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise InputError("--source takes NAME=DIR", value=text, remedy="write --source mine=/path/to/folder")
        if name in sources:
            raise InputError("two sources have the same name", value=name, remedy="give each source its own name")
        sources[name] = absolute(folder)
    return roots, sources


def add_exclusion_lists(parser: argparse.ArgumentParser) -> None:
    """``--exclude-freesound-ids LIST``."""
    parser.add_argument(
        "--exclude-freesound-ids",
        action="append",
        default=[],
        metavar="LIST",
        help="a list of ids that must not be trained on: the CSV of the DCASE challenge, the JSON of WavCaps or the "
        "CSV of aac-datasets; may be given several times",
    )


def add_protect(parser: argparse._ActionsContainer) -> None:
    """``--protect DATASET/SPLIT,...``."""
    parser.add_argument(
        "--protect",
        default=DEFAULT_PROTECT,
        metavar="DATASET/SPLIT,...",
        help="splits that are kept for validation and tests: no training clip may share sound with them "
        f"(default: {DEFAULT_PROTECT}); */WORD names every split of your own "
        "datasets in whose name WORD is a word, such as test-clean",
    )


def add_allow_unprotected(parser: argparse._ActionsContainer) -> None:
    """``--allow-unprotected``."""
    parser.add_argument(
        "--allow-unprotected",
        action="store_true",
        help="go on although too little audio of a protected split can be read to find the training clips that share "
        "sound with it; without this option the command stops there",
    )


def add_shard_size(parser: argparse._ActionsContainer, default: int | None = None) -> None:
    """Add ``--shard-size SIZE``; it is required if there is no default."""
    parser.add_argument(
        "--shard-size",
        type=size,
        default=default,
        required=default is None,
        metavar="SIZE",
        help="no shard becomes larger than this; write 1e9, 500MB or 2GiB" + (" (default: 1GB)" if default else ""),
    )
