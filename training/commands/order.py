"""``order``: show a global batch of a recipe without training."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from typing import Any

import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.config.sections import Recipe
from training.data.features import AudioInput, FeatureExtractor, segment_seeds
from training.data.loader import Loader
from training.data.masking import Masking, mask_digest
from training.data.order import Order, batch_hash
from training.data.sampling import DrawnSamples
from training.data.settings import DataSettings
from training.models.encoders import AUDIO_ENCODERS, encoder_module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's YAML file, or the name of one that comes with Earshot")
    parser.add_argument("--shards", required=True, help="the build: a folder or a URL")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe's key")
    parser.add_argument("--epoch", type=int, default=0, help="from 0")
    parser.add_argument("--step", type=int, default=0, help="from 0, in the epoch")
    parser.add_argument("--world", type=int, default=1, help="deal the batch to this many ranks and join their parts")
    parser.add_argument(
        "--workers",
        type=int,
        help="also read and transform the samples with this many loader processes a rank, and show a digest "
        "of the features",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.world < 1 or min(args.epoch, args.workers or 0) < 0:
        wrong = (args.world, args.epoch, args.workers)
        raise InputError("--world counts from 1, --epoch and --workers from 0", value=wrong)
    recipe = load_recipe(args.recipe, args.set)
    manifest = Manifest.open(args.shards)
    order = Order(manifest.table, recipe.data, recipe.seed)
    audio = declared_input(recipe)
    shown = describe(order, recipe.data, audio, args.epoch, args.step, args.world)
    if args.workers is not None:
        digests = feature_digests(manifest, order, recipe.data, audio, args)
        for sample, digest in zip(shown["samples"], digests, strict=True):
            sample["features"] = digest
    return shown


def show(result: dict[str, Any]) -> str:
    lines = [
        f"epoch {result['epoch']}, step {result['step']} of {result['steps_per_epoch']}: "
        f"{len(result['samples'])} samples, hash {result['hash']}, {result['kin_met']} that meet kin"
    ]
    lines += [
        f"  {sample['key']}  {sample['start_s']:.2f} s + {sample['duration_s']:.2f} s  "
        f"masks {sample['masks']}  {sample['caption']}"
        for sample in result["samples"]
    ]
    return "\n".join(lines)


def describe(
    order: Order, settings: DataSettings, audio: AudioInput, epoch: int, step: int, world: int = 1
) -> dict[str, Any]:
    """A global batch as plain JSON: its ranks' parts, joined in rank order."""
    samples = [
        sample for rank in range(world) for sample in _samples(order.batch(epoch, step, rank, world), settings, audio)
    ]
    return {
        "epoch": epoch,
        "step": step,
        "steps_per_epoch": order.steps_per_epoch,
        "hash": batch_hash([sample["key"] for sample in samples]),
        "kin_met": order.count_kin_repeats(epoch, step),
        "samples": samples,
    }


def _samples(draws: DrawnSamples, settings: DataSettings, audio: AudioInput) -> list[dict[str, Any]]:
    features, masking = FeatureExtractor(audio, settings.masking, train=True), Masking(settings.masking)
    bins, _ = features.shape
    out = []
    for place, key in enumerate(draws.keys):
        heard = min(float(draws.duration_s[place]), audio.max_s)
        lengths = audio.segment_lengths(max(1, round(heard * audio.rate)))
        frames = features.maskable(torch.from_numpy(lengths)).numpy()
        masks = masking.draw(segment_seeds(draws.seeds[place], len(lengths)), frames, bins)
        out.append(
            {
                "key": key,
                "clip_id": draws.clip_ids[place],
                "caption": draws.texts[place],
                "start_s": float(draws.start_s[place]),
                "duration_s": heard,
                "masks": mask_digest(*masks),
                "seed": int(draws.seeds[place]),
            }
        )
    return out


def declared_input(recipe: Recipe) -> AudioInput:
    """What the recipe's audio encoder wants to hear."""
    module, settings = encoder_module(AUDIO_ENCODERS, recipe.audio.encoder), recipe.audio
    if getattr(settings, "source", None) == "published":  # PaSST's variants say it without their weights
        settings = replace(settings, source="random")
    return AudioInput.of(module.build(settings))


def feature_digests(
    manifest: Manifest, order: Order, settings: DataSettings, audio: AudioInput, args: argparse.Namespace
) -> list[str]:
    """A digest of each sample's features as its rank's loader makes them, padding left out."""
    digests = []
    for rank in range(args.world):
        loader = Loader(manifest, order, settings, audio, _no_tokens, rank, args.world, args.workers)
        (batch,) = loader.epoch(args.epoch, args.step, args.step + 1)
        for features, frames in zip(batch.features, batch.frames, strict=True):
            data = features[frames > 0].numpy().tobytes()
            digests.append(hashlib.blake2b(data, digest_size=8).hexdigest())
    return digests


def _no_tokens(texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    """Stands where a tokenizer does: captions are shown as text here."""
    nothing = torch.zeros(len(texts), 1, dtype=torch.int64)
    return {"input_ids": nothing, "attention_mask": nothing}
