"""``explain``: the story of one clip: what it matched, where, how surely, and what became of it."""

from __future__ import annotations

import argparse
import difflib

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.fates.decide import REASONS
from sharding.reports.facts import finished_facts
from sharding.shards.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a build")
    parser.add_argument("clip", metavar="CLIP", help="a clip_id, e.g. clotho/development/Santa Motor")


def run(args: argparse.Namespace) -> dict:
    """Gather everything that a build knows about one clip."""
    build = Storage(args.out)
    if not build.exists(layout.FATES):
        raise InputError("no fates here", file=args.out, remedy="give the folder that a build wrote")
    fates = build.read_table(layout.FATES)
    rows = fates.filter(pc.field("clip_id") == args.clip).to_pylist()
    if not rows:
        near = difflib.get_close_matches(args.clip, fates["clip_id"].to_pylist(), 3, 0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else "see OUT/fates.parquet for the clips"
        raise InputError("no such clip", file=args.out, value=args.clip, remedy=remedy)
    fate = rows[0]
    matches = build.read_table(layout.MATCHES)
    mine = matches.filter((pc.field("a") == args.clip) | (pc.field("b") == args.clip)).to_pylist()
    members = {
        name: [c for c in fates.filter(pc.field(name) == fate[name])["clip_id"].to_pylist() if c != args.clip]
        for name in ("group", "kin")
    }
    dataset = args.clip.partition("/")[0]
    catalogue = build.read_table(layout.catalogue_name(dataset))
    entry = catalogue.filter(pc.field("clip_id") == args.clip).to_pylist()
    facts = finished_facts(build, ["clip_id", "detail"]).filter(pc.field("clip_id") == args.clip)
    return {
        "clip": args.clip,
        "entry": entry[0] if entry else None,
        "fate": fate,
        "rule": REASONS.get(fate["reason"], fate["reason"]),
        "detail": next(iter(facts["detail"].to_pylist()), None),
        "samples": _times(build, fate["keys"] or []),
        "matches": [_seen_from(args.clip, row) for row in mine],
        "group": members["group"],
        "kin": members["kin"],
    }


def show(result: dict) -> str:
    fate, entry = result["fate"], result["entry"] or {}
    lines = [result["clip"]]
    for name in ("path", "identity", "split", "licence"):
        if entry.get(name):
            lines.append(f"  {name}: {entry[name]}")
    for caption in entry.get("captions") or []:
        lines.append(f"  caption ({caption['kind']}): {caption['text']}")
    other = f" -> {fate['other']}" if fate["other"] else ""
    lines += ["", f"fate: {fate['fate']} ({fate['reason']}){other}", f"  {result['rule']}"]
    if result["detail"]:
        lines.append(f"  {result['detail']}")
    for key in fate["keys"] or []:
        start, end = result["samples"].get(key, (None, None))
        lines.append(f"  sample: {key}" + ("" if start is None else f", {start:.2f} to {end:.2f} s of the clip"))
    lines += ["", f"matches: {len(result['matches'])} rows"]
    for row in result["matches"]:
        where = "place unknown" if row["offset_s"] is None else f"starts at {row['offset_s']:.3f} s of this clip"
        overlap = "" if row["overlap_s"] is None else f", {row['overlap_s']:.2f} s in common"
        score = "" if row["score"] is None else f", score {row['score']:.3f}"
        lines.append(f"  {row['outcome']:9} {row['method']:12} {row['other']}: {where}{overlap}{score}")
    for name in ("group", "kin"):
        lines += ["", f"{name}: {len(result[name])} other clips"]
        lines += [f"  {clip}" for clip in result[name][:20]]
        if len(result[name]) > 20:
            lines.append(f"  ... and {len(result[name]) - 20} more")
    return "\n".join(lines)


def _times(build: Storage, keys: list[str]) -> dict[str, tuple[float, float]]:
    """Where the samples of a finished build begin and end in their clip."""
    if not keys or not build.exists(layout.DATASET):
        return {}
    table = Manifest.open(build.url).table.select(["key", "start_s", "duration_s"])
    rows = table.filter(pc.is_in(table["key"], pa.array(keys))).to_pylist()
    return {row["key"]: (row["start_s"], row["start_s"] + row["duration_s"]) for row in rows}


def _seen_from(clip: str, row: dict) -> dict:
    """A MATCHES row from one clip's side: where the other one starts in it."""
    mine = row["a"] == clip
    offset = row["offset_s"]
    return {
        "other": row["b"] if mine else row["a"],
        "method": row["method"],
        "offset_s": offset if mine or offset is None else -offset,
        "overlap_s": row["overlap_s"],
        "score": row["score"],
        "outcome": row["outcome"],
    }
