"""``build``: deduplicated shards from published datasets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from sharding.audio import ERROR_CLASSES
from sharding.audio.form import CODECS, AudioForm
from sharding.build.run import build
from sharding.commands.arguments import absolute, add_datasets, add_runner, datasets_of, runner_of, size
from sharding.commands.catalogue import list_line
from sharding.dedup.spans import LEAST_S, MARGIN_S
from sharding.fates.decide import LEAKS, FateSettings
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.plan import PlanSettings
from sharding.sources import DATASETS
from sharding.sources.protected import DEFAULT_PROTECT, parse_protect

_ABOUT = """Build deduplicated WebDataset shards from published datasets and your own sounds.

Killed at any moment, the same command goes on where it was and ends in the same bytes; over a finished build it does
nothing.  Every clip ends in one fate: written, duplicate, withheld (it would leak into a protected split), filtered or
failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a build."""
    parser.description, parser.formatter_class = _ABOUT, argparse.RawDescriptionHelpFormatter
    add_datasets(parser, "what to build from (folders, local or s3://)")
    parser.add_argument(
        "--exclude-freesound-ids",
        action="append",
        default=[],
        metavar="LIST",
        help="ids that must not be trained on: the challenge's CSV, WavCaps' JSON, aac-datasets' CSV; may be repeated",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the build goes, local or s3://")
    add_runner(parser)
    parser.add_argument(
        "--retry",
        choices=sorted(ERROR_CLASSES),
        metavar="CLASS",
        help="over a finished build: try the clips again that failed like this, and only them; one of "
        + ", ".join(sorted(ERROR_CLASSES)),
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a build: they decide its bytes."""
    settings = parser.add_argument_group("settings; others over an existing --out are refused")
    settings.add_argument(
        "--protect",
        default=DEFAULT_PROTECT,
        metavar="DATASET/SPLIT,...",
        help=f"splits with which no training clip may share sound (default {DEFAULT_PROTECT})",
    )
    settings.add_argument(
        "--shard-size",
        "--shard-bytes",
        dest="shard_bytes",
        type=size,
        default=1_000_000_000,
        metavar="SIZE",
        help="shards do not grow beyond this: 1e9, 500MB, 2GiB (default 1GB)",
    )
    settings.add_argument("--codec", choices=CODECS, default="flac", help="form of the sound (default flac)")
    settings.add_argument("--rate", type=int, default=32000, metavar="HZ", help="samples a second (default 32000)")
    settings.add_argument("--channels", type=int, choices=(1, 2), default=1, help="1: mono (default)")
    settings.add_argument(
        "--window-s",
        type=float,
        default=60.0,
        metavar="S",
        help="longer recordings become windows of this length (default 60)",
    )
    settings.add_argument("--hop-s", type=float, metavar="S", help="from window to window (default: --window-s)")
    settings.add_argument(
        "--max-s", type=float, metavar="S", help="longer recordings fail as too_long (default: no limit)"
    )
    settings.add_argument(
        "--leaks",
        choices=LEAKS,
        default="withhold",
        help="training clips that share sound with protected ones: withhold them (default), or trim them to the "
        f"longest stretch outside, where that lasts {LEAST_S:g} s and keeps {MARGIN_S:g} s away",
    )
    settings.add_argument(
        "--keep-unknown-part",
        action="store_true",
        help="keep clips that come from an unknown part of a protected clip's source",
    )
    settings.add_argument(
        "--keep-containers",
        action="store_true",
        help="keep long recordings that contain a clip with human captions",
    )
    settings.add_argument(
        "--new-plan",
        action="store_true",
        help="where --out holds a build with other settings, or of inputs that have changed since: decide anew.  What "
        "was decoded is not decoded again while clips and audio settings are the same",
    )


def settings_of(args: argparse.Namespace) -> BuildSettings:
    """Settings from parsed arguments; relative folders count from here."""
    roots, sources = datasets_of(args)
    window, protect = args.window_s, parse_protect(args.protect)
    for dataset, split in sorted(protect):
        if dataset not in DATASETS and dataset not in sources:
            told = (
                f"note: --protect names {dataset}/{split}, and no {dataset} is in this build; it may be appended later"
            )
            print(told, file=sys.stderr)
    return BuildSettings(
        roots=roots,
        sources=sources,
        exclude=tuple(absolute(path) for path in args.exclude_freesound_ids),
        probe=ProbeSettings(
            form=AudioForm(args.codec, args.rate, args.channels),
            window_s=window,
            hop_s=window if args.hop_s is None else args.hop_s,
            tail_s=min(10.0, window),
            max_s=args.max_s,
        ),
        fates=FateSettings(
            protect=protect,
            withhold_unknown_part=not args.keep_unknown_part,
            keep_containers=args.keep_containers,
            leaks=args.leaks,
        ),
        plan=PlanSettings(shard_bytes=args.shard_bytes),
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    return build(settings_of(args), absolute(args.out), runner_of(args), args.new_plan, args.retry)


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{result['samples']} samples in {result['shards']} shards, {result['bytes'] / 1e6:.1f} MB: {result['out']}",
        f"{result['clips']} clips in: " + ", ".join(f"{n} {fate}" for fate, n in result["fates"].items()),
    ]
    return "\n".join(lines + reason_lines(result["reasons"]) + remarks(result["overview"]))


def reason_lines(reasons: Mapping[str, int]) -> list[str]:
    """Why clips were not written as they are, a line each; ``reasons`` has ``fate/reason``: clips."""
    return [
        f"  {count:7} {name.replace('/', ': ')}"
        for name, count in reasons.items()
        if name.partition("/")[0] != "written" or name == "written/trimmed"
    ]


def remarks(about: dict[str, Any]) -> list[str]:
    """What is remarkable about the inputs (see ``sharding.catalogue.overview``), a line each."""
    lines = []
    for part in about["parts"]:
        name = f"{part['dataset']}/{part['part']}"
        lost = part["missing"] + part["out_of_root"]
        if lost:
            lines.append(f"{name}: no audio of {lost} of {part['clips']} clips ({lost / part['clips']:.1%})")
        if part["published_clips"] and part["published_clips"] != part["clips"]:
            lines.append(f"{name}: {part['clips']} clips of {part['published_clips']} that were published")
    for dataset, notes in about["notes"].items():
        lines += [f"{dataset}: {note}" for note in notes]
    lines += [list_line(row) for row in about["lists"]]
    lines += [f"{name}: names {count} clips" for name, count in about["listed"].items()]
    shared = about["shared_captions"]
    if shared["captions"]:
        lines.append(
            f"captions: {shared['captions']} are shared by {shared['protected']} protected and "
            f"{shared['training']} training clips (reported only)"
        )
    return ["remarks:", *(f"  {line}" for line in lines)] if lines else []
