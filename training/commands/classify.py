"""``classify``: measure how well a model tells the labels of sounds apart."""

from __future__ import annotations

import argparse
from typing import Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from training.commands.arguments import add_model, add_shards
from training.commands.fit import only_first_rank

PLACES = ("wave", "features")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure how well a model tells the labels of a split apart: accuracy, and the mean average precision over "
        "labels (mAP). A retrieval model needs no training on the labels (zero-shot): each label becomes a text. A "
        "classifier, which `fit linear_probe` trains on a frozen encoder, gives its own scores."
    )
    add_model(parser)
    add_shards(parser)
    parser.add_argument(
        "--split", required=True, metavar="SPLIT", help="the split to measure on, for example esc50/fold5"
    )
    parser.add_argument(
        "--prompt",
        default="This is a sound of {}",
        metavar="TEXT",
        help="the text of a label, with {} where the label stands (default: This is a sound of {})",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="SIGMA",
        help="also measure with Gaussian noise of this standard deviation; 0: no noise (default)",
    )
    parser.add_argument(
        "--noise-in",
        choices=PLACES,
        default="wave",
        help="add the noise to the wave, whose full scale is 1 (default), or to the features that the encoder reads",
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="how many clips a rank encodes at once (default: 32)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sharding.shards.manifest import Manifest
    from training.engine.launch import ranks
    from training.evaluation.hearing import Noise
    from training.evaluation.zero_shot import ZeroShotSettings, classify
    from training.models.classifier import Classifier
    from training.models.hub import open_any
    from training.models.retriever import Retriever
    from training.run.progress import StatusLine

    if args.batch < 1 or not args.noise >= 0 or args.noise == float("inf"):
        raise InputError("--batch must be at least 1, and --noise 0 or more", value=(args.batch, args.noise))
    if args.prompt.count("{}") != 1:
        raise InputError("--prompt must have {} once, where the label stands", value=args.prompt)
    model = open_any(args.checkpoint, args.trust_code)
    if not isinstance(model, Retriever | Classifier):
        remedy = "name a retrieval model or a classifier"
        raise InputError(f"a model of the task {model.recipe.task.name} knows no labels", remedy=remedy)
    manifest = Manifest.open(args.shards)
    result: dict[str, Any] = {}
    with ranks() as group:
        model.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        for name, sigma in {"clean": 0.0, "noisy": args.noise}.items():
            if name == "noisy" and not sigma:
                continue
            line = StatusLine(f"batches of clips, {name}", 0, quiet=group.rank != 0)
            settings = ZeroShotSettings(args.split, args.prompt, Noise(sigma, args.noise_in), args.batch)
            result[name] = classify(model, manifest, settings, group, line.report)
    result["sigma"] = args.noise
    return only_first_rank(result, group)


def show(result: dict[str, Any]) -> str:
    clean = result["clean"]
    lines = [
        f"{clean['split']}: {quantity(clean['clips'], 'clip')} with {clean['labels_a_clip']:.2f} of "
        f"{quantity(clean['labels'], 'label')} each",
        f"{'':20}{'accuracy':>10}{'mAP':>10}",
    ]
    for name in ("clean", "noisy"):
        if name in result:
            title = f"with noise of {result['sigma']:g}" if name == "noisy" else name
            lines.append(f"{title:20}{result[name]['accuracy']:10.4f}{result[name]['mAP']:10.4f}")
    lines.append(f"{'by chance':20}{clean['chance_accuracy']:10.4f}{clean['chance_mAP']:10.4f}")
    return "\n".join(lines)
