"""What a plan needs that is not here, with where its authors publish it, and how long its runs take."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.config.sections import Recipe

# Pairs a second in training on one NVIDIA A40: the README of the challenge's 2025 baseline (PaSST and RoBERTa-large)
# gives 2 h 16 min for 20 epochs of Clotho's 19,195 pairs, and 34 h 44 min with AudioCaps and WavCaps.
SLOW, FAST = 47.0, 75.0
WHENCE = (
    f"{SLOW:g} to {FAST:g} pairs a second on one A40, from the times in the README of the DCASE 2025 baseline; "
    "learning from teachers is counted twice; the other encoders and co-attention were not measured"
)
URBAN_FOLDS = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
PUBLISHED = {  # clips and captions, as the released tables count them
    "clotho/development": (3839, 19195),
    "audiocaps/train": (49838, 49838),
    "wavcaps/train": (403050, 403050),
    "tacos/development": (12358, 12358),  # its test split included
    "audioset/balanced_train": (22160, 22160),
    "audioset/unbalanced_train": (2041792, 2041792),  # as CoLLAT's paper counts them
    "fsd50k/train": (36796, 36796),
    **{f"esc50/fold{fold}": (400, 400) for fold in range(1, 6)},
    **{f"urbansound8k/fold{fold}": (clips, clips) for fold, clips in enumerate(URBAN_FOLDS, 1)},
    **{f"tut/fold{fold}": (1170, 1170) for fold in range(1, 5)},  # of 2017: a quarter of 4680
}
PLACES = {
    "clotho": "Clotho v2.1: zenodo.org/records/4783391",
    "audiocaps": "AudioCaps: captions at github.com/cdjkim/audiocaps, audio on request from its authors",
    "wavcaps": "WavCaps: huggingface.co/datasets/cvssp/WavCaps",
    "tacos": "TACOS: zenodo.org/records/15379789",
    "esc50": "ESC-50: github.com/karolpiczak/ESC-50",
    "urbansound8k": "UrbanSound8K: urbansounddataset.weebly.com",
    "fsd50k": "FSD50K: zenodo.org/records/4060432",
    "tut": "TUT Acoustic Scenes 2017: zenodo.org/records/400515",
    "audioset": "AudioSet: labels at research.google.com/audioset, recordings are copies of your own",
    "vggsound": "VGGSound: labels at www.robots.ox.ac.uk/~vgg/data/vggsound, recordings are copies of your own",
}
RELEVANCE = (
    "metadata_eval.csv, for the improved captions: resources/ of github.com/CPJKU/dcase2025_task6_baseline; "
    "give it as --relevance"
)
PASST = "PaSST's weights: releases of github.com/kkoutini/PaSST, which hear21passt downloads"


def has(there: Collection[str], split: str) -> bool:
    """Whether a build with the splits ``there`` has a split, or any split of a dataset."""
    return any(name == split or name.startswith(f"{split}/") for name in there)


def missing_data(recipe: Recipe, there: Collection[str], tests: Iterable[str]) -> list[str]:
    """The splits of a recipe and of tests that a build lacks, each with where its dataset is published."""
    asked = dict.fromkeys([*(item.split for item in recipe.data.train), *tests])
    return [
        f"{name} is not in the build. {PLACES.get(name.split('/')[0], '')}".strip()
        for name in asked
        if not has(there, name)
    ]


def missing_weights(recipe: Recipe) -> list[str]:
    """The published weights that a recipe starts from and that are not on this machine yet."""
    found = []
    for settings in (recipe.audio, recipe.text):
        source = getattr(settings, "source", "random")
        if source == "random" or Path(source).exists():
            continue
        if source == "published":
            found.append(PASST)
        elif not _cached(source):
            found.append(f"{source}: huggingface.co/{source}, which the first start downloads")
    return found


def pairs_of(recipe: Recipe, table: Any | None) -> int:
    """Pairs of an epoch: those of the build's manifest, or else as the datasets were published."""
    if table is not None:
        from training.data.sampling.order import Order

        return Order(table, replace(recipe.data, last="keep"), recipe.seed).draws_per_epoch
    total = 0
    for item in recipe.data.train:
        clips, captions = PUBLISHED[item.split]
        total += round((captions if item.pairs == "captions" else clips) * item.share * item.repeat)
    return total


def hours(pairs: int, epochs: float, teachers: bool) -> tuple[float, float]:
    """The least and the most hours of a run on one GPU."""
    total = pairs * epochs * (2 if teachers else 1)
    return total / FAST / 3600, total / SLOW / 3600


def _cached(name: str) -> bool:
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str)
