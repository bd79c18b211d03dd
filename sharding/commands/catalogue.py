"""``catalogue``: list every clip of every dataset, before anything is decided about it."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa

from sharding import layout
from sharding.catalogue.shared_captions import shared_captions
from sharding.catalogue.table import Catalogue, build_catalogue, check_protected, part_counts
from sharding.commands.arguments import (
    add_datasets,
    add_exclusion_lists,
    add_follow_links,
    add_protect,
    add_split_by,
    datasets_of,
    describe,
    split_seed_of,
)
from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.common.storage import Storage
from sharding.common.terminal import page
from sharding.dedup.identity import identity_matches, shared_sources
from sharding.rows import column, rows
from sharding.sources import DATASETS
from sharding.sources.exclusion import ListReport, list_report, listed, read_exclusion_list
from sharding.sources.protected import parse_protect

_ABOUT = """List every clip of every dataset, before anything is decided about it.

The tables are read, and the audio files are looked for but not opened.  The printed counts can be compared with those
of the publications."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_datasets(parser, "datasets (local folders or s3:// addresses); their audio may be missing")
    add_exclusion_lists(parser)
    add_protect(parser)
    add_split_by(parser)
    add_follow_links(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder that receives catalogue/ and orphans.parquet"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write ``catalogue/<dataset>.parquet`` and ``orphans.parquet`` below ``--out``, and count their rows."""
    protect = parse_protect(args.protect)
    lists = [read_exclusion_list(path) for path in args.exclude_freesound_ids]
    roots, own = datasets_of(args)
    if not roots and not own:
        raise InputError("no dataset was given", remedy="give at least one, for example --clotho DIR")
    out = Storage(args.out)
    if out.exists(layout.DATASET) or layout.work_of(out).exists(layout.Work.SETTINGS):
        raise InputError(
            "this folder holds a build, which has a catalogue already", file=args.out, remedy="choose another --out"
        )
    catalogue = build_catalogue(roots, own, args.follow_links, split_seed_of(args))
    check_protected(catalogue.table, own, protect)
    for dataset in catalogue.notes:
        out.write_table(layout.catalogue_name(dataset), catalogue.of(dataset))
    out.write_table(layout.ORPHANS, catalogue.orphans)
    matches = identity_matches(catalogue.table)
    named = listed(catalogue.table, lists)
    reports = list_report(catalogue.table, lists)
    return {
        "out": args.out,
        "parts": part_counts(catalogue.table),
        "datasets": _datasets(catalogue),
        "notes": {dataset: list(notes) for dataset, notes in catalogue.notes.items()},
        "row_notes": _row_notes(catalogue.table),
        "orphans": catalogue.orphans.num_rows,
        "same_source": dict(Counter(column(matches, "outcome", str))),
        "shared_inside": len(shared_sources(catalogue.table)),
        "lists": [{key: value for key, value in row.items() if key != "missed_ids"} for row in reports],
        "listed": dict(Counter(named.values())),
        "captions_shared_with_protected": shared_captions(catalogue.table, protect).num_rows,
    }


class _Notes(NamedTuple):
    notes: list[str]


def _datasets(catalogue: Catalogue) -> dict[str, dict[str, int | None]]:
    """How many clips each dataset lists, and how many clips were published in all its parts together."""
    clips = Counter(column(catalogue.table, "dataset", str))
    published = {}
    for name in catalogue.notes:
        parts = DATASETS[name].published if name in DATASETS else {}
        whole = parts.get("*") or (sum(clips for clips, _ in parts.values()),)
        published[name] = {"clips": clips[name], "published_clips": whole[0] or None}
    return published


def _row_notes(table: pa.Table) -> dict[str, int]:
    """How many clips have each kind of note; the part of a note that differs from clip to clip is left out."""
    kinds: Counter[str] = Counter()
    for clip in rows(table, _Notes):
        kinds.update({note.partition(":")[0].partition(" (")[0].partition(" in ")[0] for note in clip.notes})
    return dict(kinds.most_common())


_COLUMNS = ("clips", "published_clips", "captions", "published_captions", "audio", "missing", "out_of_root",
            "ids", "hours")  # fmt: skip
_HEADS = ("clips", "published", "captions", "published", "audio", "missing", "outside", "with id", "hours")


def show(result: dict[str, Any]) -> str:
    head = f"{'dataset/part':32}" + "".join(f"{name:>11}" for name in _HEADS)
    lines = [head, "-" * len(head)]
    for row in result["parts"]:
        cells = [row[name] for name in _COLUMNS]
        name = f"{row['dataset']}/{row['part']}"
        lines.append(f"{name:32}" + "".join(f"{'' if cell is None else cell:>11}" for cell in cells))
    for name, counts in result["datasets"].items():
        of = f" of {counts['published_clips']:,} published" if counts["published_clips"] else ""
        lines.append(f"{name}: {quantity(counts['clips'], 'clip')}{of}")
    lines.append(f"audio files that no table names: {result['orphans']} (orphans.parquet)")
    if result["row_notes"]:
        lines += ["", "remarks about clips:"]
        lines += [f"  {count:8}  {note}" for note, count in result["row_notes"].items()]
    for dataset, notes in result["notes"].items():
        lines += [f"{dataset}: {note}" for note in notes]
    pairs = ", ".join(f"{count} {outcome}" for outcome, count in sorted(result["same_source"].items())) or "none"
    lines += ["", f"pairs of clips whose ids name the same source: {pairs}"]
    lines.append(f"sources that several clips of the same dataset come from: {result['shared_inside']}")
    shared = result["captions_shared_with_protected"]
    lines.append(f"captions of both protected and other clips: {shared}")
    lines += [list_line(row) for row in result["lists"]]
    lines += [f"{name}: names {quantity(count, 'clip')} of the catalogue" for name, count in result["listed"].items()]
    return page(lines)


def list_line(row: ListReport) -> str:
    """How much of one part of a dataset an exclusion list covers."""
    count = quantity(row["no_id"], "clip has", "clips have")
    nameless = f"; {count} no id that a list could name" if row["no_id"] else ""
    part = f"{row['dataset']}/{row['part']}"
    missed = f"does not name {row['missed']} of" if row["missed"] else "names all of"
    return f"{row['list']}: {missed} the {row['values']} ids of {part}{nameless}"
