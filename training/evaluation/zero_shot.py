"""Classification of the clips of a split by a model of any kind.

A retrieval model classifies without training on the labels ("zero-shot"): each label becomes a text, and a clip belongs
to the label whose text is nearest (CoLLAT, section 5.1).  A classifier gives its own scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.data.captions import label_prompt, normalise
from training.data.sampling.mixture import select_rows
from training.data.sampling.order import SequentialOrder
from training.data.sources import labels_of
from training.engine.distributed import Group
from training.evaluation.classification import Scores, figures, label_matrix
from training.evaluation.encoding import encode_clips
from training.evaluation.hearing import Hearing, Noise
from training.models.classifier import Classifier
from training.models.retriever import Retriever

PROMPT = "This is a sound of {}"  # CoLLAT, section 4.1


@dataclass(frozen=True)
class ZeroShotSettings:
    """What is classified.

    Attributes:
        split: dataset/split.
        prompt: the text of a label, with ``{}`` where the label stands; a classifier reads none.
        noise: what is added to each clip.
        batch_size: clips that a rank encodes at once.
    """

    split: str
    prompt: str = PROMPT
    noise: Noise = field(default_factory=Noise)
    batch_size: int = 32


def classify(
    model: Retriever | Classifier,
    manifest: Any,
    settings: ZeroShotSettings,
    group: Group,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy and macro mAP of a split's labels, and what chance gives; the same on every rank.

    Args:
        model: a retrieval model, or a classifier.
        manifest: the manifest of the build; the captions of the kind label are the labels of a clip.
        settings: what is classified.
        group: the ranks; each encodes its share of the clips.
        progress: called with the number of batches that are done, and of all batches.

    Raises:
        InputError: the clips have no labels, or none that a classifier knows.
    """
    labels, score = _scorer(model, manifest, settings)
    order = SequentialOrder(manifest.table, settings.split, model.recipe.data, settings.batch_size)
    hearing = Hearing(_heard(model), model.recipe.data, model.audio_input, settings.noise)
    scores = score(encode_clips(hearing, manifest, order, group, progress))
    drawn = [found for step in range(order.steps_per_epoch) for found in order.batch(0, step).labels]
    return {"split": settings.split} | figures(scores, label_matrix(drawn, labels), settings.split)


def _scorer(
    model: Retriever | Classifier, manifest: Any, settings: ZeroShotSettings
) -> tuple[tuple[str, ...], Callable[[tuple[Tensor, ...]], Scores]]:
    """The labels, and a function from what is kept of clips to their scores ``[clips, labels]``."""
    if isinstance(model, Classifier):
        return model.labels, lambda kept: kept[0].double().numpy()
    labels = dataset_labels(manifest.table, settings.split)
    texts = [normalise(label_prompt(settings.prompt, [label]), model.recipe.data) for label in labels]
    sides = [model.encode_texts(texts[start : start + 256]) for start in range(0, len(texts), 256)]

    def score(kept: tuple[Tensor, ...]) -> Scores:
        clips = tuple(tensor.to(model.device) for tensor in kept)
        scores: Scores = torch.cat([model.score(side, clips) for side in sides]).double().t().numpy()
        return scores

    return labels, score


def dataset_labels(table: Any, split: str) -> tuple[str, ...]:
    """The different labels of all clips of the split's dataset, sorted.

    A split may lack some of them, and the task is to tell all of them apart.
    """
    select_rows(table, split)  # refuses a split that is none
    dataset = split.partition("/")[0]
    labels = sorted({label for found in labels_of(table, dataset) for label in found if label})
    if len(labels) < 2:
        raise InputError(
            "classification needs at least two labels",
            value=", ".join(labels) or "none",
            remedy=f"name a split whose dataset has captions of the kind label, not {dataset}",
        )
    return tuple(labels)


def _heard(model: Retriever | Classifier) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
    """A function from features, frames and seeds to what is kept of clips."""
    device = next(model.model.parameters()).device

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        moved = [tensor.to(device) for tensor in inputs]
        if isinstance(model, Classifier):
            return (model.model.logits(*moved),)
        return model.model.audio_side(*moved)

    return call
