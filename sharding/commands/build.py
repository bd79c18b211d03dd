"""``build``: deduplicated shards from published datasets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.audio import ERROR_CLASSES
from sharding.audio.form import CODECS, AudioForm
from sharding.build import BuildSettings, build
from sharding.catalogue import SOURCES
from sharding.errors import InputError
from sharding.fates import FateSettings
from sharding.leaks import DEFAULT_PROTECT, parse_protect
from sharding.plan import PlanSettings
from sharding.probe import ProbeSettings
from sharding.runners import LocalRunner, Runner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a build, for this command and for ``ray_jobs/build_shards.py``."""
    inputs = parser.add_argument_group("what to build from (folders, local or s3://)")
    for name in SOURCES:
        inputs.add_argument(f"--{name}", metavar="DIR", help=f"{name} as it is published")
    inputs.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="your own sounds: a folder with clips.csv or clips.jsonl (path, captions, ...)",
    )
    inputs.add_argument(
        "--exclude-freesound-ids",
        action="append",
        default=[],
        metavar="CSV",
        help="a list of ids that must not be trained on; may be given more than once",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the build goes, local or s3://")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine (default 1)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster instead")
    parser.add_argument(
        "--retry", choices=ERROR_CLASSES, metavar="CLASS", help="try the clips again that failed like this, only them"
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
    settings.add_argument("--shard-bytes", type=float, default=1e9, help="size of a shard (default 1e9)")
    settings.add_argument("--codec", choices=CODECS, default="flac", help="form of the sound (default flac)")
    settings.add_argument("--rate", type=int, default=32000, help="samples a second (default 32000)")
    settings.add_argument("--channels", type=int, choices=(1, 2), default=1, help="1: mono (default)")
    settings.add_argument(
        "--window-s",
        type=float,
        default=60.0,
        help="longer recordings become windows of this length (default 60)",
    )
    settings.add_argument("--hop-s", type=float, help="from window to window (default: --window-s)")
    settings.add_argument("--max-s", type=float, help="longer recordings fail as too_long (default: no limit)")
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
    settings.add_argument("--new-plan", action="store_true", help="throw away a build with other settings in --out")


def settings_of(args: argparse.Namespace) -> BuildSettings:
    """Settings from parsed arguments; relative folders count from here."""
    sources = {}
    for text in args.source:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise InputError("--source takes NAME=DIR", value=text)
        sources[name] = _absolute(folder)
    window = args.window_s
    return BuildSettings(
        roots={name: _absolute(getattr(args, name)) for name in SOURCES if getattr(args, name)},
        sources=sources,
        exclude=tuple(_absolute(path) for path in args.exclude_freesound_ids),
        probe=ProbeSettings(
            form=AudioForm(args.codec, args.rate, args.channels),
            window_s=window,
            hop_s=args.hop_s or window,
            tail_s=min(10.0, window),
            max_s=args.max_s,
        ),
        fates=FateSettings(
            protect=parse_protect(args.protect),
            withhold_unknown_part=not args.keep_unknown_part,
            keep_containers=args.keep_containers,
        ),
        plan=PlanSettings(shard_bytes=int(args.shard_bytes)),
    )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def run(args: argparse.Namespace) -> dict[str, Any]:
    runner: Runner = LocalRunner(args.workers)
    if args.ray:
        from ray_jobs.runner import RayRunner

        runner = RayRunner(args.ray)
    return build(settings_of(args), _absolute(args.out), runner, args.new_plan, args.retry)


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{result['samples']} samples in {result['shards']} shards, {result['bytes'] / 1e6:.1f} MB: {result['out']}",
        f"{result['clips']} clips in: " + ", ".join(f"{n} {fate}" for fate, n in result["fates"].items()),
    ]
    for name, count in result["reasons"].items():
        if name.partition("/")[0] != "written":
            lines.append(f"  {count:7} {name.replace('/', ': ')}")
    return "\n".join(lines)
