"""Retrieval: captions against clips, every caption of the global batch against every clip.

`assemble` makes the model and the loss that a recipe describes, `RetrievalTask` is what the engine trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from training.config.sections import DistillationSettings, Recipe
from training.data.batch import Batch
from training.data.loader import Loader
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.data.sources import open_clips, training_captions
from training.data.stored import Stored
from training.engine.distributed import Group
from training.evaluation.encoding import engine_side_encoder
from training.evaluation.metrics import DIRECTIONS, MEASURED
from training.evaluation.run import EvaluationSettings, evaluate
from training.models.build import build_towers
from training.models.heads import build_head
from training.models.retrieval import RetrievalModel
from training.models.retriever import Retriever
from training.objectives.local.token_alignment import TokenAlignment
from training.objectives.pairs import build_loss
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.distillation import Distillation
from training.objectives.pairs.distillation import Settings as DistillationTemperatures
from training.objectives.pairs.relations import batch_ids
from training.objectives.pairs.tiled import Items
from training.tasks.base import LocalSum, Outputs, PairTerm, RunTask, TeacherSides
from training.tasks.health import alignment_and_uniformity
from training.tasks.teachers import ModelTeacher, RetrievalTeacher, open_teacher

SECTIONS = ("audio", "text", "head", "loss")
METRICS = tuple(f"{direction}/{name}" for direction in DIRECTIONS for name in MEASURED)
TEXT, AUDIO = "text", "audio"  # names of the sides
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """Retrieval has no settings of its own: its sections say everything."""

    name: Literal["retrieval"]


class RetrievalTask(RunTask):
    """A retrieval model and its loss over all pairs of the global batch.

    Args:
        model: two encoders and a head.
        loss: what to make of the head's scores.
        name: the name of the loss in the log.
        distillation: how teachers are listened to; None: there are none.
        teachers: whose scores are averaged.
        alignment: weight of a loss between the tokens of each caption and those of its clip; 0: none.
    """

    def __init__(
        self,
        model: RetrievalModel,
        loss: PairLoss,
        name: str = "pairs",
        distillation: DistillationSettings | None = None,
        teachers: Sequence[RetrievalTeacher] = (),
        alignment: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.loss_name = model, loss, name
        self.distillation, self._teachers = distillation, tuple(teachers)
        if distillation is not None:
            taus = DistillationTemperatures(tau=distillation.tau, teacher_tau=distillation.teacher_tau)
            self.distilled = Distillation(taus)
        self.alignment, self.alignment_weight = None, alignment
        if alignment:
            self.alignment = TokenAlignment(model.audio.dim, model.text.dim)
            model.keeps_patches = True

    def forward(self, batch: Batch) -> Outputs:
        found, ids = self.model(batch), batch_ids(batch)
        outputs = Outputs({TEXT: Items(tuple(found.text_side), ids), AUDIO: Items(tuple(found.audio_side), ids)})
        if self.alignment is not None:
            outputs.local["alignment of tokens"] = LocalSum(*self.alignment(found.audio, found.text))
        return outputs

    def fixed_sides(self, batch: Batch) -> dict[str, Items]:
        ids, found = batch_ids(batch), {}
        for number, teacher in enumerate(self._teachers):
            for name, side in zip((TEXT, AUDIO), teacher.sides(batch, self.stored.encoders), strict=True):
                found[_teacher_side(number, name)] = Items(side, ids)
        return found

    def terms(self) -> dict[str, PairTerm]:
        head, settings = self.model.head, self.distillation
        if settings is None:
            return {self.loss_name: PairTerm(TEXT, AUDIO, head, self.loss)}
        teachers = tuple(
            TeacherSides(teacher.scorer, _teacher_side(number, TEXT), _teacher_side(number, AUDIO))
            for number, teacher in enumerate(self._teachers)
        )
        found = {"distillation": PairTerm(TEXT, AUDIO, head, self.distilled, settings.weight, teachers)}
        if settings.supervised:
            found[self.loss_name] = PairTerm(TEXT, AUDIO, head, self.loss, settings.supervised)
        return found

    def weights(self) -> dict[str, float]:
        return {"alignment of tokens": self.alignment_weight}

    def health(self, sides: Mapping[str, Items], group: Group) -> dict[str, float]:
        with torch.no_grad():
            found = self.loss.health()
        sounds, words = (self.model.head.embedding(sides[name].side) for name in (AUDIO, TEXT))
        if sounds is None or words is None:
            return found
        return found | alignment_and_uniformity(sounds, words, group)

    def towers(self) -> dict[str, Any]:
        return {"audio": self.model.audio, "text": self.model.text}

    @property
    def tokenizer(self) -> Any:
        return self.model.text.tokenizer

    @property
    def keeps_words(self) -> bool:
        """Whether vectors of single tokens are used: by the head, by a teacher, or by the loss between tokens."""
        heads = [self.model.head, *(each.scorer for each in self._teachers if isinstance(each, ModelTeacher))]
        return bool(self.alignment_weight) or any(head.uses_words for head in heads)

    def why_not_stored(self, part: str, encoder: str) -> str | None:
        running = [teacher for teacher in self._teachers if isinstance(teacher, ModelTeacher)]
        patches = self.model.keeps_patches
        if part == "audio" and not all(teacher.reads_stored(part, encoder, patches) for teacher in running):
            return (
                "a teacher with another audio encoder, or one that needs every patch, hears every batch (name a folder "
                "that `earshot teach` or `earshot scores` wrote instead)"
            )
        if part == "audio" and self.model.audio.reads_with_text:
            return "the language model of the text encoder reads the sounds too"
        return None

    def loader(self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device) -> Loader:
        audio = AudioInput.of(self.model.audio)
        rank, world = group.rank, group.size
        return Loader(source, order, settings, audio, self.tokenizer, rank, world, device=device, stored=self.stored)

    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        asked = recipe.validation
        assert asked.split is not None
        encoder = engine_side_encoder(engine, self.model, recipe.data, Stored(audio=self.stored.audio))
        result = evaluate(encoder, source, EvaluationSettings(asked.split, asked.batch, asked.first), group)
        return {f"{direction}/{name}": value for direction in DIRECTIONS for name, value in result[direction].items()}


def _teacher_side(number: int, name: str) -> str:
    return f"teacher {number} {name}"


def complete(recipe: Recipe, source: Any) -> Recipe:
    """The recipe; the data decide nothing of it."""
    return recipe


def assemble(recipe: Recipe, captions: Iterable[str]) -> tuple[RetrievalModel, PairLoss]:
    """The model and the loss that a recipe describes; random weights follow from its seed.

    Args:
        recipe: what to build.
        captions: a tokenizer is trained on them where the recipe names none.
    """
    torch.manual_seed(recipe.seed)
    audio, text = build_towers(recipe, captions)
    head = build_head(recipe.head, audio.dim, text.dim)
    head.global_batch = recipe.data.batch_size
    model = RetrievalModel(audio, text, head, sample_dropout=recipe.engine.dropout == "sample")
    return model, build_loss(recipe.loss)


def make_task(recipe: Recipe, source: Any, trust_code: bool = False) -> RetrievalTask:
    """The task that a recipe describes, with its teachers.

    Args:
        recipe: what to build.
        source: the source of the training data, on whose captions a tokenizer is trained where the recipe names none.
        trust_code: whether to run the Python files of encoders that come with teachers.
    """
    model, loss = assemble(recipe, training_captions(source.table, recipe.data))
    student, teachers = AudioInput.of(model.audio), []
    if recipe.distillation is not None:
        teachers = [open_teacher(name, student, recipe.data, trust_code) for name in recipe.distillation.teachers]
    return RetrievalTask(model, loss, recipe.loss.name, recipe.distillation, teachers, recipe.alignment.weight)


def blank(recipe: Recipe, texts: Iterable[str]) -> Retriever:
    """A retriever with random weights; arguments as of `assemble`."""
    model, loss = assemble(recipe, texts)
    return Retriever(model, loss, recipe)
