"""``catalogue``: every clip of every dataset, before any decision, in a table to check against the papers."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import pyarrow as pa

from sharding.catalogue import Catalogue, build_catalogue, part_counts
from sharding.errors import InputError
from sharding.leaks import (
    DEFAULT_PROTECT,
    identity_matches,
    list_report,
    listed,
    parse_protect,
    read_exclusion_list,
    shared_captions,
    shared_sources,
)
from sharding.sources import SOURCES
from sharding.storage import Storage


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the datasets lie; ``dataset_roots`` reads the answers."""
    for dataset in SOURCES:
        parser.add_argument(f"--{dataset}", metavar="DIR", help=f"folder of {dataset}, local or remote")
    parser.add_argument(
        "--source", metavar="NAME=DIR", action="append", default=[], help="your own sounds; may be repeated"
    )


def dataset_roots(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """(published datasets, generic sources) of a command line: name to folder."""
    roots = {name: getattr(args, name) for name in SOURCES if getattr(args, name)}
    own: dict[str, str] = {}
    for entry in args.source:
        name, equals, folder = entry.partition("=")
        if not equals or not name or not folder:
            raise InputError("not NAME=DIR", value=entry, remedy="write --source mine=/path/to/folder")
        if name in own:
            raise InputError("two sources of one name", value=name, remedy="give each source its own name")
        own[name] = folder
    if not roots and not own:
        flags = ", ".join(f"--{name}" for name in SOURCES)
        raise InputError("no dataset given", remedy=f"give at least one of {flags}, --source")
    return roots, own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset_arguments(parser)
    parser.add_argument(
        "--exclude-freesound-ids", metavar="FILE", action="append", default=[],
        help="an exclusion list (the challenge's CSV, WavCaps' JSON, aac-datasets' CSV); may be repeated",
    )  # fmt: skip
    parser.add_argument("--protect", default=DEFAULT_PROTECT, metavar="DATASET/SPLIT,...", help="(%(default)s)")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for catalogue/ and orphans.parquet")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write ``OUT/catalogue/<dataset>.parquet`` and ``OUT/orphans.parquet``, and count."""
    protect = parse_protect(args.protect)
    lists = [read_exclusion_list(path) for path in args.exclude_freesound_ids]
    roots, own = dataset_roots(args)
    catalogue = build_catalogue(roots, own)
    out = Storage(args.out)
    for dataset in catalogue.notes:
        out.write_table(f"catalogue/{dataset}.parquet", catalogue.of(dataset))
    out.write_table("orphans.parquet", catalogue.orphans)
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
        "same_source": dict(Counter(matches["outcome"].to_pylist())),
        "shared_inside": len(shared_sources(catalogue.table)),
        "lists": [{key: value for key, value in row.items() if key != "missed_ids"} for row in reports],
        "listed": dict(Counter(named.values())),
        "captions_shared_with_protected": shared_captions(catalogue.table, protect).num_rows,
    }


def _datasets(catalogue: Catalogue) -> dict[str, dict[str, int | None]]:
    """Clips of each dataset beside what was published of all its parts together."""
    clips = Counter(catalogue.table["dataset"].to_pylist())
    published = {}
    for name in catalogue.notes:
        parts = SOURCES[name].published if name in SOURCES else {}
        whole = parts.get("*") or (sum(clips for clips, _ in parts.values()),)
        published[name] = {"clips": clips[name], "published_clips": whole[0] or None}
    return published


def _row_notes(table: pa.Table) -> dict[str, int]:
    """How many clips have each kind of note; what differs from clip to clip stands after the first ``:``."""
    kinds: Counter[str] = Counter()
    for notes in table["notes"].to_pylist():
        kinds.update({note.partition(":")[0].partition(" (")[0].partition(" in ")[0] for note in notes})
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
        of = f" of {counts['published_clips']} published" if counts["published_clips"] else ""
        lines.append(f"{name}: {counts['clips']} clips{of}")
    lines.append(f"audio that belongs to no row: {result['orphans']} (orphans.parquet)")
    if result["row_notes"]:
        lines += ["", "remarks on clips:"]
        lines += [f"  {count:8}  {note}" for note, count in result["row_notes"].items()]
    for dataset, notes in result["notes"].items():
        lines += [f"{dataset}: {note}" for note in notes]
    pairs = ", ".join(f"{count} {outcome}" for outcome, count in sorted(result["same_source"].items())) or "none"
    lines += ["", f"pairs of clips of one source, by id: {pairs}"]
    lines.append(f"sources that several clips of one dataset share: {result['shared_inside']}")
    shared = result["captions_shared_with_protected"]
    lines.append(f"captions that protected and other clips have in common: {shared}")
    for row in result["lists"]:
        lines.append(
            f"{row['list']}: lacks {row['missed']} of the {row['values']} ids of {row['dataset']}/{row['part']}"
            + (f" ({row['no_id']} clips have no id that a list could name)" if row["no_id"] else "")
        )
    lines += [f"{name}: names {count} clips of the catalogue" for name, count in result["listed"].items()]
    return "\n".join(lines)
