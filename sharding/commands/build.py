"""``build``: make deduplicated shards from published datasets and sounds of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sharding.audio import ERROR_CLASSES
from sharding.audio.form import CODECS, AudioForm
from sharding.build.failure_limit import FailureLimit
from sharding.build.run import build
from sharding.catalogue.overview import Overview
from sharding.commands.arguments import (
    absolute,
    add_allow_unprotected,
    add_datasets,
    add_exclusion_lists,
    add_follow_links,
    add_protect,
    add_shard_size,
    add_split_by,
    datasets_of,
    describe,
    split_seed_of,
)
from sharding.commands.catalogue import list_line
from sharding.common.runners import add_runner, runner_of
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from sharding.dedup.spans import LEAST_S, MARGIN_S
from sharding.fates.decide import LEAKS, FateSettings
from sharding.fates.protection import protection_line
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.plan import PlanSettings
from sharding.sources import DATASETS
from sharding.sources.protected import OWN, parse_protect

_ABOUT = """Build deduplicated WebDataset shards from published datasets and from sounds of your own.

Every clip ends with exactly one fate:

  written    it is in the shards
  duplicate  it is the same recording as another clip, which is kept
  withheld   it shares sound with a protected split, or an exclusion list names it
  filtered   a rule excludes it, for example because it has no caption
  failed     its audio is missing or cannot be read

The command can be killed at any moment and run again: it continues where it was and ends with the same bytes.  Run over
a finished build, it changes nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a build."""
    describe(parser, _ABOUT)
    add_datasets(parser, "datasets (local folders or s3:// addresses)")
    add_exclusion_lists(parser)
    parser.add_argument(
        "--out", required=True, metavar="OUT", help="the folder of the build: a local path or an s3:// address"
    )
    add_runner(parser)
    add_allow_unprotected(parser)
    parser.add_argument(
        "--max-failed",
        type=failure_limit,
        metavar="SHARE|COUNT",
        help="stop where more clips than this cannot be read, as a number (100) or a share (2%%) of all clips; a file "
        "that is not there at all does not count. By default all may fail, and each is listed with its error",
    )
    parser.add_argument(
        "--retry",
        choices=sorted(ERROR_CLASSES),
        metavar="CLASS",
        help="in a finished build, read again only the clips that failed with this error, which is one of "
        + ", ".join(sorted(ERROR_CLASSES)),
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the settings of a build, which decide its bytes."""
    settings = parser.add_argument_group(
        "settings (a finished build refuses different ones, unless --new-plan is given)"
    )
    add_protect(settings)
    add_split_by(settings)
    add_follow_links(settings)
    add_shard_size(settings, default=1_000_000_000)
    settings.add_argument(
        "--codec", choices=CODECS, default="flac", help="codec of the sound in the shards (default: flac)"
    )
    settings.add_argument(
        "--rate", type=int, default=32000, metavar="HZ", help="sample rate in the shards (default: 32000)"
    )
    settings.add_argument(
        "--channels", type=int, choices=(1, 2), default=1, help="channels in the shards (default: 1, mono)"
    )
    settings.add_argument(
        "--window-s",
        type=float,
        default=60.0,
        metavar="S",
        help="cut longer recordings into windows of this length in seconds (default: 60)",
    )
    settings.add_argument(
        "--hop-s",
        type=float,
        metavar="S",
        help="seconds from the start of a window to the start of the next (default: --window-s)",
    )
    settings.add_argument(
        "--max-s",
        type=float,
        metavar="S",
        help="recordings that last longer, in seconds, fail as too_long (default: no limit)",
    )
    settings.add_argument(
        "--leaks",
        choices=LEAKS,
        default="withhold",
        help="what to do with a training clip that shares sound with a protected clip: withhold it (default), or trim "
        f"it to its longest stretch that is at least {MARGIN_S:g} s away from the shared sound, if this stretch lasts "
        f"at least {LEAST_S:g} s",
    )
    settings.add_argument(
        "--keep-unknown-part",
        action="store_true",
        help="write a training clip from the same source as a protected clip if no table says from which part",
    )
    settings.add_argument(
        "--keep-containers",
        action="store_true",
        help="write a recording without human captions also if a clip with human captions is an excerpt of it",
    )
    settings.add_argument(
        "--new-plan",
        action="store_true",
        help="if OUT holds a build with different settings, or if its inputs have changed, decide about every clip "
        "again; a clip is decoded again only if it or the settings of the sound have changed",
    )


def failure_limit(text: str) -> FailureLimit:
    """The limit of ``--max-failed``."""
    try:
        return FailureLimit.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"not a number of clips or a share of them: {text!r}; write 100 or 2%"
        ) from None


def settings_of(args: argparse.Namespace) -> BuildSettings:
    """The settings that the arguments ask for; relative folders start at the current folder."""
    roots, sources = datasets_of(args)
    window, protect = args.window_s, parse_protect(args.protect)
    for dataset, split in sorted(protect):
        if dataset not in (*DATASETS, *sources, OWN):
            print(
                f"note: --protect names {dataset}/{split}, but this build has no dataset {dataset}; "
                "the split is protected if the dataset is appended later",
                file=sys.stderr,
            )
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
        follow_links=args.follow_links,
        plan=PlanSettings(shard_bytes=args.shard_size),
        split_seed=split_seed_of(args),
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    out, runner, settings = absolute(args.out), runner_of(args), settings_of(args)
    result = build(settings, out, runner, args.new_plan, args.retry, args.allow_unprotected, args.max_failed)
    return result | {"exit": 0 if result["samples"] else 1}


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{quantity(result['samples'], 'sample')} in {quantity(result['shards'], 'shard')}, "
        f"{result['bytes'] / 1e6:.1f} MB: {result['out']}",
        f"{quantity(result['clips'], 'clip')}: " + ", ".join(f"{n} {fate}" for fate, n in result["fates"].items()),
    ]
    if not result["samples"]:
        lines.append(
            "ERROR: no sample was written. Once the cause is removed, add --retry CLASS to read the clips that failed "
            "with an error class (--retry missing: those without audio), or --new-plan to look at all inputs again"
        )
    lines += [f"  {protection_line(split)}" for split in result["protection"] if split["clips"]]
    return page(lines + reason_lines(result["reasons"], result["failed"]) + remarks(result["overview"]))


def reason_lines(reasons: Mapping[str, int], failed: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """One line for each reason why clips were not written whole.

    Args:
        reasons: counts the clips by ``fate/reason``.
        failed: some of the clips that failed, by reason.
    """
    lines = []
    for name, count in reasons.items():
        fate, _, reason = name.partition("/")
        if fate == "written" and reason != "trimmed":
            continue
        named = (failed or {}).get(reason, ()) if fate == "failed" else ()
        such = "such as " if len(named) < count else ""
        lines.append(f"  {count:7} {fate}: {reason}" + (f" ({such}{', '.join(named)})" if named else ""))
    return lines


def remarks(about: Overview) -> list[str]:
    """Remarks about the inputs, one on each line; ``about`` is an overview (``sharding.catalogue.overview``)."""
    lines = []
    for part in about["parts"]:
        name = f"{part['dataset']}/{part['part']}"
        lost = part["missing"] + part["out_of_root"]
        if lost:
            share = f"{lost:,} of {quantity(part['clips'], 'clip')} ({lost / part['clips']:.1%})"
            lines.append(f"{name}: {share} {'has' if lost == 1 else 'have'} no audio")
        if part["published_clips"] and part["published_clips"] != part["clips"]:
            lines.append(f"{name}: lists {part['clips']:,} of the {part['published_clips']:,} published clips")
    for dataset, notes in about["notes"].items():
        lines += [f"{dataset}: {note}" for note in notes]
    lines += [list_line(row) for row in about["lists"]]
    lines += [f"{name}: names {quantity(count, 'clip')}" for name, count in about["listed"].items()]
    shared = about["shared_captions"]
    if shared["captions"]:
        belong = quantity(shared["captions"], "caption belongs", "captions belong")
        lines.append(
            f"captions: {belong} both to protected clips ({shared['protected']}) and to "
            f"training clips ({shared['training']}); no clip was removed for this"
        )
    return ["remarks:", *(f"  {line}" for line in lines)] if lines else []
