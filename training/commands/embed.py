"""``embed``: write the vectors of clips, for batches of neighbours or for other programs."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, add_split, open_build, require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the vectors of a build's clips to a Parquet file with the columns clip_id and embedding."
    )
    add_model(parser)
    add_shards(parser)
    add_split(parser, "embed")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the Parquet file to write, local or s3://; a recipe can name it as data.shuffle.neighbours",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import pyarrow as pa

    from sharding.common.storage import located
    from training.evaluation.whole_clips import encode_build
    from training.models.hub import open_model

    require_file(args.out)
    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    if retriever.model.head.embedding(retriever.encode_texts(["a sound"])) is None:
        raise InputError(
            "a head with attention has no vectors of clips alone",
            value=retriever.method,
            remedy="name a model with the head dual",
        )
    encoded = encode_build(retriever, manifest, args.split)
    vectors = retriever.model.head.embedding(encoded.sides)
    assert vectors is not None
    columns = {"clip_id": encoded.clips, "embedding": pa.array(list(vectors.numpy()), pa.list_(pa.float32()))}
    storage, name = located(args.out)
    storage.write_table(name, pa.table(columns))
    return {"clips": len(encoded.clips), "width": vectors.shape[1], "out": args.out}


def show(result: dict[str, Any]) -> str:
    return f"{quantity(result['clips'], 'clip')}, {result['width']} numbers each: {result['out']}"
