"""``explain``: say what became of one clip, and why."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.checks import read_checked
from sharding.commands.arguments import describe
from sharding.common.commandline import text
from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.common.storage import Storage
from sharding.common.terminal import page
from sharding.dedup.residual import difference_in_words
from sharding.fates.decide import REASONS
from sharding.reports.facts import finished_facts
from sharding.rows import CatalogueRow, FateRow, MatchRow, column, optional_column, rows
from sharding.schema import CATALOGUE, FATES, MATCHES
from sharding.shards.manifest import Manifest

_SHOWN_CLIPS = 20  # of a group
_ABOUT = """Say what became of one clip, and why.

The command prints the captions of the clip, its fate, its samples in the shards, and every other clip that shares sound
or a source with it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    parser.add_argument("out", metavar="OUT", help="the folder of a build: a local path or an s3:// address")
    parser.add_argument(
        "clip", type=text, metavar="CLIP", help="the clip_id, for example 'clotho/development/Santa Motor'"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Find everything that a build knows about one clip."""
    build, clip = Storage(args.out), args.clip
    if not build.exists(layout.FATES):
        raise InputError("there is no build here", file=args.out, remedy="give the folder that `build` wrote")
    fates = read_checked(build, layout.FATES, FATES)
    fate = next(rows(fates.filter(pc.field("clip_id") == clip), FateRow), None)
    if fate is None:
        near = _resembling(clip, column(fates, "clip_id", str))
        all_clips = f"{build.name(layout.FATES)} lists all clips; `earshot export OUT --csv DIR` writes it as CSV"
        remedy = f"did you mean {' or '.join(near)}?" if near else all_clips
        raise InputError("this build has no such clip", file=args.out, value=clip, remedy=remedy)
    matches = read_checked(build, layout.MATCHES, MATCHES).filter((pc.field("a") == clip) | (pc.field("b") == clip))
    catalogue = read_checked(build, layout.catalogue_name(clip.partition("/")[0]), CATALOGUE)
    entry = next(rows(catalogue.filter(pc.field("clip_id") == clip), CatalogueRow), None)
    facts = finished_facts(build, ["clip_id", "detail"]).filter(pc.field("clip_id") == clip)
    return {
        "clip": clip,
        "entry": entry._asdict() if entry else None,
        "fate": fate._asdict(),
        "rule": REASONS.get(fate.reason, fate.reason),
        "detail": next(iter(optional_column(facts, "detail", str)), None),
        "samples": _sample_times(build, fate.keys),
        "matches": [_seen_from(clip, match) for match in rows(matches, MatchRow)],
        "group": _others(fates, "group", fate.group, clip),
        "kin": _others(fates, "kin", fate.kin, clip),
    }


def show(result: dict[str, Any]) -> str:
    lines = [result["clip"], *_entry_lines(result["entry"] or {}), "", *_fate_lines(result), ""]
    lines.append(f"evidence about other clips: {quantity(len(result['matches']), 'row')}")
    lines += [line for match in result["matches"] for line in _match_lines(match)]
    for name, meaning in (("group", "clips with the same sound"), ("kin", "clips that may share sound or a source")):
        clips = result[name]
        lines += ["", f"{name} ({meaning}): {len(clips)} other clips"]
        lines += [f"  {clip}" for clip in clips[:_SHOWN_CLIPS]]
        if len(clips) > _SHOWN_CLIPS:
            lines.append(f"  ... and {len(clips) - _SHOWN_CLIPS} more")
    return page(lines)


def _resembling(clip: str, known: list[str]) -> list[str]:
    """Clips that may be meant: those that resemble ``clip`` as a whole, or else that have it in their name."""
    near = difflib.get_close_matches(clip, known, 3, 0.5)
    return near or [one for one in known if clip.casefold() in one.casefold()][:3]


class _SampleTimes(NamedTuple):
    key: str
    start_s: float
    duration_s: float


def _sample_times(build: Storage, keys: list[str]) -> dict[str, tuple[float, float]]:
    """When the samples of a finished build start and end, in seconds of their clip."""
    if not keys or not build.exists(layout.DATASET):
        return {}
    table = Manifest.open(build.url).table
    found = rows(table.filter(pc.is_in(table["key"], pa.array(keys))), _SampleTimes)
    return {sample.key: (sample.start_s, sample.start_s + sample.duration_s) for sample in found}


def _others(fates: pa.Table, name: str, value: str, clip: str) -> list[str]:
    """The other clips with the same value in the column ``name``."""
    return [one for one in column(fates.filter(pc.field(name) == value), "clip_id", str) if one != clip]


def _seen_from(clip: str, match: MatchRow) -> dict[str, Any]:
    """A row of MATCHES from one clip's side: ``offset_s`` is when the other clip starts in this one."""
    offset = match.offset_s if clip == match.a or match.offset_s is None else -match.offset_s
    return {
        "other": match.b if clip == match.a else match.a,
        "method": match.method,
        "offset_s": offset,
        "overlap_s": match.overlap_s,
        "score": match.score,
        "outcome": match.outcome,
        "difference": match.difference,
    }


def _entry_lines(entry: dict[str, Any]) -> list[str]:
    lines = [f"  {name}: {entry[name]}" for name in ("path", "identity", "split", "licence") if entry.get(name)]
    return lines + [f"  caption ({caption['kind']}): {caption['text']}" for caption in entry.get("captions", [])]


def _fate_lines(result: dict[str, Any]) -> list[str]:
    fate = result["fate"]
    because = f", because of {fate['other']}" if fate["other"] else ""
    lines = [f"fate: {fate['fate']} ({fate['reason']}){because}", f"  {result['rule']}"]
    if result["detail"]:
        lines.append(f"  {result['detail']}")
    for key in fate["keys"]:
        start, end = result["samples"].get(key, (None, None))
        lines.append(f"  sample: {key}" + ("" if start is None else f", {start:.2f} to {end:.2f} s of the clip"))
    return lines


def _match_lines(match: dict[str, Any]) -> list[str]:
    start = "at an unknown time" if match["offset_s"] is None else f"starts at {match['offset_s']:.3f} s of this clip"
    overlap = "" if match["overlap_s"] is None else f", {match['overlap_s']:.2f} s in common"
    score = "" if match["score"] is None else f", score {match['score']:.3f}"
    lines = [f"  {match['outcome']:9} {match['method']:12} {match['other']}: {start}{overlap}{score}"]
    return lines + ([f"    {difference_in_words(match['difference'])}"] if match["difference"] else [])
