"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sharding.common.errors import InputError

if TYPE_CHECKING:
    from sharding.shards.manifest import Manifest


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add a recipe and ``--set``, which changes its keys."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="the recipe: a YAML file, or the name of one that comes with Earshot (demo, dual_encoder, ...)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, for example optimizer.lr=1e-4; may be repeated",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """A trained model."""
    parser.add_argument(
        "checkpoint",
        metavar="MODEL",
        help="the model: an export, a checkpoint, the folder of a run, whose export is used if there is one (local, or "
        "s3://BUCKET/MODEL), or the folder or Hugging Face name of a published ClapModel or sentence-transformers "
        "model with audio",
    )
    add_trust_code(parser, "the model")


def add_trust_code(parser: argparse.ArgumentParser, whose: str) -> None:
    """Whether code that comes with a model may run."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help=f"run the Python files of encoders that come with {whose}; read them first, they have all your rights",
    )


def add_shards(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """A build of shards; where it is not required, some tasks read none."""
    note = "" if required else "; a recipe that trains on text alone reads none"
    parser.add_argument("--shards", required=required, metavar="OUT", help="the build: a folder or a URL" + note)


def add_split(parser: argparse.ArgumentParser, use: str) -> None:
    """A split, or the whole build."""
    parser.add_argument(
        "--split",
        metavar="SPLIT",
        help=f"{use} only this split (clotho/evaluation) or dataset (clotho); by default every clip of the build",
    )


def open_build(shards: str, *splits: str | None) -> Manifest:
    """The manifest of a build that has these splits; a mistyped one is refused here, before a model takes time to load.

    ``None`` stands for every clip of the build.
    """
    from sharding.shards.manifest import Manifest
    from training.data.sampling.mixture import select_rows

    manifest = Manifest.open(shards)
    for split in splits:
        if split is not None:
            select_rows(manifest.table, split)
    return manifest


def file_in_the_way(folder: str | Path) -> Path | None:
    """A file whose name is needed for a folder of this machine, or for one above it; None: there is none."""
    place = Path(folder)
    return next((each for each in (place, *place.parents) if each.exists() and not each.is_dir()), None)


def require_file(out: str | Path) -> None:
    """``InputError`` if a file that is to be written is a folder; said before the work and not after it."""
    if Path(out).is_dir():
        raise InputError("it is a folder", file=out, remedy="name a file for --out")
