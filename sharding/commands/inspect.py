"""``inspect``: a build, or one sample of it."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
from typing import Any

import pyarrow.compute as pc

from sharding.build.run import summary
from sharding.common.errors import MEND, InputError
from sharding.layout import shard_name
from sharding.shards.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a build, local or s3://")
    parser.add_argument("key", metavar="KEY", nargs="?", help="a sample's key or a clip_id")


def run(args: argparse.Namespace) -> dict[str, Any]:
    manifest = Manifest.open(args.out)
    if args.key is None:
        return summary(manifest.storage) | {"shard_list": manifest.dataset["shards"]}
    table = manifest.table
    rows = table.filter(pc.or_(pc.equal(table["key"], args.key), pc.equal(table["clip_id"], args.key)))
    if rows.num_rows == 0:
        near = difflib.get_close_matches(args.key, table["key"].to_pylist(), 3, 0.5)
        advice = f"did you mean {' or '.join(near)}? " if near else ""
        remedy = f"{advice}`python -m sharding explain` tells what became of a clip that has no sample"
        raise InputError("no such sample", file=args.out, value=args.key, remedy=remedy)
    row = rows.slice(0, 1).to_pylist()[0]
    text = manifest.storage.read(shard_name(row["shard"]), row["json_offset"], row["json_bytes"])
    if hashlib.sha256(text).hexdigest() != row["json_sha256"]:
        raise InputError(
            f"damaged: the JSON of {row['key']}",
            file=manifest.storage.name(shard_name(row["shard"])),
            remedy=MEND,
        )
    return {"manifest": row, "json": json.loads(text), "windows": rows["key"].to_pylist()}


def show(result: dict[str, Any]) -> str:
    if "manifest" in result:
        row = result["manifest"]
        lines = [
            row["key"],
            f"  in shards/{row['shard']} at byte {row['audio_offset']}, {row['audio_bytes']} bytes",
        ]
        if len(result["windows"]) > 1:
            lines.append(f"  the clip has {len(result['windows'])} windows")
        return "\n".join([*lines, json.dumps(result["json"], indent=2, ensure_ascii=False)])
    lines = [f"{result['out']}: {result['samples']} samples, plan {result['plan'][:12]}"]
    for shard in result["shard_list"]:
        lines.append(f"  {shard['name']:44} {shard['samples']:7} samples {shard['bytes'] / 1e6:10.1f} MB")
    return "\n".join(lines)
