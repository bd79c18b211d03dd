"""``caption``: write captions of a split's clips, and compare them with those of people."""

from __future__ import annotations

import argparse
import csv
import io
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards, require_file
from training.commands.fit import only_first_rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a captioner, which `fit captioning` trains, write a caption for each clip of a split, and compare it with "
        "the captions of the split: BLEU, ROUGE-L, CIDEr-D, METEOR and SPICE. Measures that need Java or a download "
        "are named where they are skipped."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument("--split", required=True, metavar="SPLIT", help="the split, for example audiocaps/test")
    parser.add_argument("--out", metavar="FILE", help="write the captions to this CSV file, local or s3://")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips a rank encodes at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.caption_scores import score_captions
    from training.evaluation.captioning import write_captions
    from training.models.captioner import Captioner
    from training.models.hub import open_any
    from training.run.progress import StatusLine

    if args.batch < 1:
        raise InputError("--batch must be at least 1", value=args.batch)
    if args.out:
        require_file(args.out)
    model = open_any(args.checkpoint, args.trust_code)
    if not isinstance(model, Captioner):
        remedy = "name a model that `earshot fit captioning` trained"
        raise InputError("the model writes no captions", file=args.checkpoint, remedy=remedy)
    manifest = Manifest.open(args.shards)
    with ranks() as group:
        model.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        line = StatusLine("batches of clips", 0, quiet=group.rank != 0)
        found = write_captions(model, manifest, args.split, args.batch, group, line.report)
    result: dict[str, Any] = {"split": args.split, "clips": len(found.clips)}
    if group.rank == 0:
        scores = score_captions(found.written, found.references)
        result |= {"figures": scores.figures, "skipped": scores.skipped}
        if args.out:
            _store(args.out, found.clips, found.written)
            result["out"] = args.out
    return only_first_rank(result, group)


def _store(out: str, clips: list[str], written: list[str]) -> None:
    from sharding.common.storage import located

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("clip_id", "caption"), *zip(clips, written, strict=True)])
    storage, name = located(out)
    storage.write(name, text.getvalue().encode())


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['split']}: {quantity(result['clips'], 'clip')}"]
    lines += [f"{name:10}{value:8.4f}" for name, value in result["figures"].items()]
    lines += [f"skipped {name}: {reason}" for name, reason in result["skipped"].items()]
    return "\n".join([*lines, *([f"captions: {result['out']}"] if "out" in result else [])])
