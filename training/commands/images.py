"""``images``: measure how well sounds find images and images sounds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards
from training.commands.fit import only_first_rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure retrieval between the clips of a split and an image of each (as in VGGSound: a frame of its video): "
        "the mean reciprocal rank, and R@k. The model's sounds must live in CLIP's space, as those of the recipe "
        "collat do."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument("--split", required=True, metavar="SPLIT", help="the split, for example vggsound/test")
    parser.add_argument(
        "--frames", required=True, type=Path, metavar="DIR", help="one image for each clip, named as its sound file"
    )
    parser.add_argument(
        "--clip",
        required=True,
        metavar="SOURCE",
        help="the CLIP whose text tower the model reads with: a folder, or a name on the Hugging Face hub",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips a rank encodes at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.images import ImageTower, evaluate_images
    from training.models.hub import open_model
    from training.run.progress import StatusLine

    if args.batch < 1:
        raise InputError("--batch must be at least 1", value=args.batch)
    retriever = open_model(args.checkpoint, args.trust_code)
    tower, manifest = ImageTower(args.clip), Manifest.open(args.shards)
    with ranks() as group:
        retriever.model.to("cuda" if torch.cuda.is_available() else "cpu")
        line = StatusLine("batches of clips", 0, quiet=group.rank != 0)
        result = evaluate_images(retriever, manifest, args.split, args.frames, tower, args.batch, group, line.report)
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    from training.evaluation.images import DIRECTIONS

    lines = [f"{result['split']}: {quantity(result['clips'], 'clip')}, each with an image"]
    names = [name for name in result[DIRECTIONS[0]] if not name.startswith("chance")]
    lines.append(f"{'':18}" + "".join(f"{name:>9}" for name in names))
    for direction in DIRECTIONS:
        values = "".join(f"{result[direction][name]:9.4f}" for name in names)
        lines.append(f"{direction.replace('_', ' '):18}{values}")
    lines.append(f"{'by chance':18}{result[DIRECTIONS[0]]['chance_MRR']:9.4f}")
    return "\n".join(lines)
