"""``embed``: write the vectors of clips, for batches of neighbours or for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import located
from sharding.shards.manifest import Manifest
from training.models.hub import open_model
from training.search.index import build_index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="an export, a checkpoint, or a run's folder")
    parser.add_argument("--shards", required=True, help="the build: a folder or a URL")
    parser.add_argument("--split", help="dataset/split or dataset; default: every clip of the build")
    parser.add_argument(
        "--out", required=True, help="Parquet with clip_id and embedding; data.shuffle.neighbours reads it"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    if Path(args.out).is_dir():
        raise InputError("it is a folder", file=args.out, remedy="name a file for --out")
    retriever = open_model(args.checkpoint)
    if retriever.model.head.embedding(retriever.encode_texts(["a sound"])) is None:
        raise InputError(
            "a head with attention has no vectors of clips alone",
            value=retriever.recipe.head.name,
            remedy="name a model with the head dual",
        )
    index = build_index(retriever, Manifest.open(args.shards), args.split)
    vectors = retriever.model.head.embedding(index.sides)
    assert vectors is not None
    columns = {"clip_id": index.clips, "embedding": pa.array(list(vectors.numpy()), pa.list_(pa.float32()))}
    storage, name = located(args.out)
    storage.write_table(name, pa.table(columns))
    return {"clips": len(index.clips), "width": vectors.shape[1], "out": args.out}


def show(result: dict[str, Any]) -> str:
    return f"{result['clips']} clips, {result['width']} numbers each: {result['out']}"
