"""Classification: the labels of a clip from its sound, on a frozen audio encoder (a probe) or one that is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_dropout, require
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.loader import Loader
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.data.sources import labels_of, open_clips, training_labels
from training.engine.distributed import Group
from training.evaluation.classification import figures, label_matrix
from training.evaluation.encoding import infer_clips
from training.models.build import build_audio
from training.models.classifier import Classifier, ClassifierModel, DecoderProbe, LinearProbe
from training.tasks.base import LocalSum, Outputs, RunTask

SECTIONS = ("audio",)
METRICS = ("accuracy", "mAP")
LOSS = "labels"  # name of the local term
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """A probe that reads an audio encoder's vectors; ``optimizer.freeze: [audio.*]`` keeps the encoder as it is."""

    name: Literal["classification"]
    probe: Literal["linear", "decoder"] = "linear"
    kind: Literal["single", "multiple"] | None = None  # labels a clip; null: single where each training clip has one
    labels: tuple[str, ...] = ()  # what the probe tells apart; empty: every label of the training clips
    heads: int = 4  # of the decoder's attention
    dropout: float = 0.0  # in the decoder

    def __post_init__(self) -> None:
        require(self.heads >= 1, "heads must be positive", self.heads)
        require(len(set(self.labels)) == len(self.labels), "labels has a label twice", self.labels)
        check_dropout(self, "dropout")


class ClassificationTask(RunTask):
    """A classifier and the cross-entropy of its labels.

    Args:
        model: encoder and probe.
        labels: what the probe tells apart, in the order of its logits.
        single: whether each clip has one label (softmax) or any number (sigmoid).
    """

    def __init__(self, model: ClassifierModel, labels: tuple[str, ...], single: bool) -> None:
        super().__init__()
        self.model, self.single, self.labels = model, single, labels

    def forward(self, batch: Batch) -> Outputs:
        logits = self.model(batch).float()
        wanted = torch.from_numpy(label_matrix(batch.labels, self.labels)).to(logits.device)
        if self.single:
            labelled = wanted.any(1)
            losses = F.cross_entropy(logits, wanted.long().argmax(1), reduction="none") * labelled
            return Outputs(local={LOSS: LocalSum(losses.sum(), labelled.sum())})
        losses = F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="none").mean(1)
        return Outputs(local={LOSS: LocalSum(losses.sum(), torch.tensor(float(len(losses))))})

    def loader(self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device) -> Loader:
        audio = AudioInput.of(self.model.audio)
        return Loader(source, order, settings, audio, None, group.rank, group.size, device=device)

    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        asked = recipe.validation
        assert asked.split is not None
        order = SequentialOrder(source.table, asked.split, recipe.data, asked.batch)

        def call(task: Any, batch: Batch) -> list[tuple[list[float], list[str]]]:
            return list(zip(task.model(batch).float().tolist(), batch.labels, strict=True))

        found = infer_clips(engine, call, source, order, AudioInput.of(self.model.audio), None, group)
        scores = np.array([logits for logits, _ in found])
        wanted = label_matrix([labels for _, labels in found], self.labels)
        measured = figures(scores, wanted, asked.split)
        return {name: measured[name] for name in METRICS}

    def towers(self) -> dict[str, Any]:
        return {"audio": self.model.audio}


def complete(recipe: Recipe, source: Any) -> Recipe:
    """The recipe with the labels of the training clips, and whether each clip has one or several."""
    settings: Settings = recipe.task
    labels = settings.labels or tuple(training_labels(source.table, recipe.data))
    if len(labels) < 2:
        raise InputError(
            "classification needs at least two labels",
            value=", ".join(labels) or "none",
            remedy="train on splits whose clips have captions of the kind label",
        )
    kind = settings.kind or ("single" if _one_each(source.table, recipe.data) else "multiple")
    return replace(recipe, task=replace(settings, labels=labels, kind=kind))


def _one_each(table: Any, settings: DataSettings) -> bool:
    """Whether every training clip has exactly one label."""
    return all(len(found) == 1 for item in settings.train for found in labels_of(table, item.split))


def make_task(recipe: Recipe, source: Any, trust_code: bool = False) -> ClassificationTask:
    """The task of a complete recipe."""
    return ClassificationTask(_model(recipe), recipe.task.labels, recipe.task.kind == "single")


def blank(recipe: Recipe, texts: Iterable[str]) -> Classifier:
    """A classifier with random weights."""
    return Classifier(_model(recipe), nn.Module(), recipe)


def _model(recipe: Recipe) -> ClassifierModel:
    torch.manual_seed(recipe.seed)
    settings: Settings = recipe.task
    audio = build_audio(recipe)
    if settings.probe == "decoder" and audio.dim % settings.heads:
        raise InputError("task.heads must divide the width of the encoder", value=settings.heads, remedy=str(audio.dim))
    count = len(settings.labels)
    probe = (
        LinearProbe(audio.dim, count)
        if settings.probe == "linear"
        else DecoderProbe(audio.dim, count, settings.heads, settings.dropout)
    )
    return ClassifierModel(audio, probe, sample_dropout=recipe.engine.dropout == "sample")
