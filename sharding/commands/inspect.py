"""``inspect``: show a build, or one sample of it."""

from __future__ import annotations

import argparse
import difflib
import json
from typing import Any

import pyarrow.compute as pc

from sharding.build.run import summary
from sharding.commands.arguments import add_build, describe
from sharding.common.commandline import text
from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from sharding.rows import ManifestRow, column, rows
from sharding.shards.manifest import Manifest

_ABOUT = """Show a build with its shards; or, with KEY, one sample: where it lies in its shard, and its JSON."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, _ABOUT)
    add_build(parser)
    parser.add_argument("key", type=text, metavar="KEY", nargs="?", help="the key of a sample, or a clip_id")


def run(args: argparse.Namespace) -> dict[str, Any]:
    manifest = Manifest.open(args.out)
    if args.key is None:
        return summary(manifest.storage) | {"shard_list": manifest.dataset["shards"]}
    table = manifest.table
    found = table.filter(pc.or_(pc.equal(table["key"], args.key), pc.equal(table["clip_id"], args.key)))
    if found.num_rows == 0:
        near = difflib.get_close_matches(args.key, column(table, "key", str), 3, 0.5)
        advice = f"did you mean {' or '.join(near)}? " if near else ""
        remedy = f"{advice}`earshot explain` says what became of a clip that has no sample"
        raise InputError("this build has no such sample", file=args.out, value=args.key, remedy=remedy)
    sample = next(rows(found, ManifestRow))
    return {
        "manifest": sample._asdict(),
        "json": manifest.sample_json(sample),
        "windows": column(found, "key", str),
    }


def show(result: dict[str, Any]) -> str:
    if "manifest" in result:
        sample = result["manifest"]
        lines = [
            sample["key"],
            f"  {sample['audio_bytes']} bytes at byte {sample['audio_offset']} of {sample['shard']}",
        ]
        if len(result["windows"]) > 1:
            lines.append(f"  the clip has {len(result['windows'])} windows; this is the first")
        return page([*lines, *json.dumps(result["json"], indent=2, ensure_ascii=False).split("\n")])
    lines = [f"{result['out']}: {quantity(result['samples'], 'sample')}, plan {result['plan'][:12]}"]
    for shard in result["shard_list"]:
        lines.append(f"  {shard['name']:44} {shard['samples']:7} samples {shard['bytes'] / 1e6:10.1f} MB")
    return page(lines)
