"""``moments``: measure how well a model finds the moment of a recording that a caption describes."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, open_build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure moment retrieval: each caption with times of a split is looked for in its own recording. R1@0.5 and "
        "R1@0.7 say how often the first window found overlaps the true interval by so much (intersection over union); "
        "mAP is the mean average precision over the thresholds 0.5 to 0.95."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--split", required=True, metavar="SPLIT", help="a split whose captions have times, such as tacos/test"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.evaluation.encoding import side_encoder
    from training.evaluation.moments import retrieve_moments
    from training.models.hub import open_model

    manifest = open_build(args.shards, args.split)
    retriever = open_model(args.checkpoint, args.trust_code)
    encoder = side_encoder(retriever.model, retriever.recipe.data)
    return retrieve_moments(encoder, manifest, args.split)


def show(result: dict[str, Any]) -> str:
    captions, clips = quantity(result["captions"], "caption"), quantity(result["clips"], "recording")
    lines = [f"{captions} with times of {clips} of {result['split']}"]
    lines += [
        f"{name:8} {result[name]:.3f}" + (f"  (chance {result[chance]:.3f})" if chance in result else "")
        for name, chance in (("R1@0.5", "chance_R1@0.5"), ("R1@0.7", "chance_R1@0.7"), ("mAP", ""))
    ]
    return "\n".join([*lines, f"at best {result['reachable_R1@0.7']:.3f} of R1@0.7: the windows that are tried"])
