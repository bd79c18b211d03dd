"""``stats``: durations, captions and licences of a build."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from sharding.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a build, local or s3://")


def run(args: argparse.Namespace) -> dict[str, Any]:
    manifest = Manifest.open(args.out)
    columns = ["dataset", "split", "clip_id", "window", "duration_s", "rate", "captions", "licence"]
    families: dict[str, list[dict[str, Any]]] = {}
    for row in manifest.table.select(columns).to_pylist():
        families.setdefault(f"{row['dataset']}/{row['split']}", []).append(row)
    return {"out": args.out, "splits": {name: _describe(rows) for name, rows in sorted(families.items())}}


def _describe(rows: list[dict[str, Any]]) -> dict[str, Any]:
    clips: dict[str, float] = {}
    for row in rows:
        clips[row["clip_id"]] = clips.get(row["clip_id"], 0.0) + row["duration_s"]
    durations = sorted(clips.values())
    first = [row for row in rows if row["window"] == 0]
    captions = [caption for row in first for caption in row["captions"]]
    words = sorted(len(caption["text"].split()) for caption in captions)
    return {
        "clips": len(clips),
        "samples": len(rows),
        "hours": sum(durations) / 3600,
        "shortest_s": durations[0],
        "median_s": durations[len(durations) // 2],
        "longest_s": durations[-1],
        "rates": dict(Counter(str(row["rate"]) for row in rows)),
        "captions": dict(sorted(Counter(caption["kind"] for caption in captions).items())),
        "median_words": words[len(words) // 2] if words else 0,
        "licences": dict(Counter(row["licence"] or "unknown" for row in first).most_common()),
    }


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{'split':26} {'clips':>8} {'samples':>8} {'hours':>9} {'shortest':>9} {'median':>7} {'longest':>8}  captions"
    ]
    for name, split in result["splits"].items():
        captions = ", ".join(f"{count} {kind}" for kind, count in split["captions"].items())
        lines.append(
            f"{name:26} {split['clips']:8} {split['samples']:8} {split['hours']:9.2f} {split['shortest_s']:8.1f}s "
            f"{split['median_s']:6.1f}s {split['longest_s']:7.1f}s  {captions}"
        )
    for name, split in result["splits"].items():
        for licence, count in list(split["licences"].items())[:5]:
            lines.append(f"  {name}: {count} clips under {licence}")
    return "\n".join(lines)
