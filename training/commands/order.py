"""``order``: show a global batch of a recipe without training."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.common.terminal import page
from training.commands.arguments import add_recipe, add_shards

if TYPE_CHECKING:  # torch takes seconds to import, and --help does without it
    from sharding.shards.manifest import Manifest
    from training.config.sections import Recipe
    from training.data import AudioInput, DataSettings, DrawnSamples, Order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show a global batch of a recipe without training: its samples in order, each with its caption, its crop and "
        "a digest of its masks. The batch is the same for any number of ranks and workers."
    )
    add_recipe(parser)
    add_shards(parser, required=False)
    parser.add_argument("--epoch", type=int, default=0, metavar="N", help="the epoch, counted from 0")
    parser.add_argument("--step", type=int, default=0, metavar="N", help="the step in the epoch, counted from 0")
    parser.add_argument(
        "--world",
        type=int,
        default=1,
        metavar="N",
        help="split the batch over N ranks and join their parts again (default: 1)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="also read and transform the samples with N loader processes on each rank (0: in this process), and show "
        "a digest of the features of each",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from training.config.loading import load_recipe
    from training.data import Order
    from training.run.checks import check_splits, with_found_splits
    from training.tasks import task_module

    if args.world < 1 or min(args.epoch, args.workers or 0) < 0:
        wrong = (args.world, args.epoch, args.workers)
        raise InputError("--world must be at least 1, --epoch and --workers 0 or more", value=wrong)
    recipe = load_recipe(args.recipe, args.set)
    manifest = task_module(recipe).open_source(recipe, args.shards)
    recipe, _ = with_found_splits(recipe, manifest.table)
    check_splits(recipe, manifest.table)
    order = Order(manifest.table, recipe.data, recipe.seed)
    audio = None if recipe.audio is None else declared_input(recipe)
    shown = describe(order, recipe.data, audio, args.epoch, args.step, args.world)
    if args.workers is not None:
        if audio is None:
            raise InputError("a task on text has no features to show", remedy="leave out --workers")
        digests = feature_digests(manifest, order, recipe.data, audio, args)
        for sample, digest in zip(shown["samples"], digests, strict=True):
            sample["features"] = digest
    return shown


def show(result: dict[str, Any]) -> str:
    lines = [
        f"epoch {result['epoch']}, step {result['step']} of {result['steps_per_epoch']}: "
        f"{quantity(len(result['samples']), 'sample')}, hash {result['hash']}, "
        f"{result['kin_met']} of them with kin earlier in the batch"
    ]
    lines += [f"  {sample['key']}  {_cut(sample)}{sample['caption']}" for sample in result["samples"]]
    return page(lines)


def _cut(sample: dict[str, Any]) -> str:
    if "start_s" not in sample:
        return ""
    return f"{sample['start_s']:.2f} s + {sample['duration_s']:.2f} s  masks {sample['masks']}  "


def describe(
    order: Order, settings: DataSettings, audio: AudioInput | None, epoch: int, step: int, world: int = 1
) -> dict[str, Any]:
    """A global batch as plain JSON: the parts of its ranks, joined in rank order; without ``audio`` it is of texts."""
    from training.data.sampling.order import batch_name, name_part

    samples = [
        sample for rank in range(world) for sample in _samples(order.batch(epoch, step, rank, world), settings, audio)
    ]
    return {
        "epoch": epoch,
        "step": step,
        "steps_per_epoch": order.steps_per_epoch,
        "hash": batch_name(name_part([sample["key"] for sample in samples])),
        "kin_met": order.count_kin_repeats(epoch, step),
        "samples": samples,
    }


def _samples(draws: DrawnSamples, settings: DataSettings, audio: AudioInput | None) -> list[dict[str, Any]]:
    names = [
        {"key": key, "clip_id": draws.clip_ids[row], "caption": draws.texts[row], "seed": int(draws.seeds[row])}
        for row, key in enumerate(draws.keys)
    ]
    if audio is None:
        return names
    return [name | cut for name, cut in zip(names, _cuts(draws, settings, audio), strict=True)]


def _cuts(draws: DrawnSamples, settings: DataSettings, audio: AudioInput) -> list[dict[str, Any]]:
    """The crop of each sample, and a digest of its masks."""
    import torch

    from training.data.sound.features import FeatureExtractor, segment_seeds
    from training.data.sound.masking import Masking, mask_digest

    features, masking = FeatureExtractor(audio, settings.masking, train=True), Masking(settings.masking)
    bins, _ = features.shape
    out = []
    for row in range(len(draws)):
        duration_s = min(float(draws.duration_s[row]), audio.max_s)
        lengths = audio.segment_lengths(max(1, round(duration_s * audio.rate)))
        frames = features.maskable(torch.from_numpy(lengths)).numpy()
        masks = masking.draw(segment_seeds(draws.seeds[row], len(lengths)), frames, bins)
        out.append({"start_s": float(draws.start_s[row]), "duration_s": duration_s, "masks": mask_digest(*masks)})
    return out


def declared_input(recipe: Recipe) -> AudioInput:
    """The input that the recipe's audio encoder takes."""
    from training.data.sound.features import AudioInput
    from training.models.encoders import AUDIO_ENCODERS, encoder_module

    module, settings = encoder_module(AUDIO_ENCODERS, recipe.audio.encoder), recipe.audio
    if getattr(settings, "source", None) == "published":  # PaSST's variants declare it without their weights
        settings = replace(settings, source="random")
    return AudioInput.of(module.build(settings))


def feature_digests(
    manifest: Manifest, order: Order, settings: DataSettings, audio: AudioInput, args: argparse.Namespace
) -> list[str]:
    """A digest of each sample's features as the loader of its rank computes them, without padding."""
    from training.data.loader import Loader

    digests = []
    for rank in range(args.world):
        loader = Loader(manifest, order, settings, audio, _no_tokens, rank, args.world, args.workers)
        (batch,) = loader.epoch(args.epoch, args.step, args.step + 1)
        for features, frames in zip(batch.features, batch.frames, strict=True):
            data = features[frames > 0].numpy().tobytes()
            digests.append(hashlib.blake2b(data, digest_size=8).hexdigest())
    return digests


def _no_tokens(texts: list[str], **options: Any) -> dict[str, Any]:
    """Takes the place of a tokenizer, because this command shows captions as text."""
    import torch

    nothing = torch.zeros(len(texts), 1, dtype=torch.int64)
    return {"input_ids": nothing, "attention_mask": nothing}
