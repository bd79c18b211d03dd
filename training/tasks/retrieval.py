"""Retrieval: captions against clips, every caption of the global batch against every clip.

`assemble` makes the model and the loss that a recipe describes, `RetrievalTask` is what the engine trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from sharding.common.errors import InputError
from training.config.sections import DistillationSettings, Recipe
from training.data.batch import Batch
from training.data.captions import normalise
from training.data.features import AudioInput, find_front_end
from training.data.masking import Masking
from training.data.mixture import select_rows
from training.data.settings import DataSettings
from training.engine.distributed import Group
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, encoder_module
from training.models.encoders.lora import adapt
from training.models.heads import build_head
from training.models.retrieval import RetrievalModel
from training.objectives.local.token_alignment import TokenAlignment
from training.objectives.pairs import build_loss
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.distillation import Distillation
from training.objectives.pairs.distillation import Settings as DistillationTemperatures
from training.objectives.pairs.relations import batch_ids
from training.objectives.pairs.tiled import Items
from training.tasks.base import LocalSum, Outputs, PairTerm, Task, TeacherSides
from training.tasks.health import alignment_and_uniformity
from training.tasks.teachers import RetrievalTeacher, open_teacher

TEXT, AUDIO = "text", "audio"  # names of the sides
TOKENIZER = "tokenizer"  # folder of a run or an export


class RetrievalTask(Task):
    """A retrieval model and its loss over all pairs of the global batch.

    Args:
        model: two encoders and a head.
        loss: what to make of the head's scores.
        name: of the loss in the log.
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
            for name, side in zip((TEXT, AUDIO), teacher.sides(batch), strict=True):
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


def _teacher_side(number: int, name: str) -> str:
    return f"teacher {number} {name}"


def training_captions(table: pa.Table, settings: DataSettings) -> list[str]:
    """The different captions that training reads, as the model reads them, sorted."""
    texts: set[str] = set()
    for item in settings.train:
        rows = pa.array(select_rows(table, item.split))
        captions = pc.list_flatten(table["captions"].filter(rows)).combine_chunks()
        kept = captions.filter(pc.is_in(captions.field("kind"), pa.array(list(item.captions), pa.string())))
        texts.update(kept.field("text").to_pylist())
    return sorted({normalise(text, settings) for text in texts if text} - {""})


def with_tokenizer(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the tokenizer that an earlier start trained, where there is one in ``folder``."""
    tokenizer = folder / TOKENIZER
    if _trains_tokenizer(recipe.text) and tokenizer.is_dir():
        return replace(recipe, text=replace(recipe.text, tokenizer=str(tokenizer)))
    return recipe


def _trains_tokenizer(settings: Any) -> bool:
    return getattr(settings, "source", "random") == "random" and getattr(settings, "tokenizer", "none") is None


def assemble(recipe: Recipe, captions: Iterable[str]) -> tuple[RetrievalModel, PairLoss]:
    """The model and the loss that a recipe describes; random weights follow from its seed.

    Args:
        recipe: what to build.
        captions: a tokenizer is trained on them where the recipe names none.
    """
    torch.manual_seed(recipe.seed)
    audio = encoder_module(AUDIO_ENCODERS, recipe.audio.encoder).build(recipe.audio)
    text = encoder_module(TEXT_ENCODERS, recipe.text.encoder).build(recipe.text, captions)
    if not 0 < audio.hop_s <= audio.segment_s:
        remedy = (
            f"a hop above 0, and at most the encoder's {audio.segment_s:g} s, or sound between segments is never heard"
        )
        raise InputError("audio.hop_s cannot be", value=audio.hop_s, remedy=remedy)
    masking = Masking(recipe.data.masking)
    if masking.active and not find_front_end(audio.front_end).maskable:
        raise InputError(
            "data.masking masks spectrograms, and the audio encoder reads the wave itself",
            value=recipe.audio.encoder,
            remedy="set data.masking.time_masks and data.masking.freq_masks to 0",
        )
    if text.max_tokens is not None and recipe.data.max_tokens > text.max_tokens:
        remedy = f"the text encoder reads at most {text.max_tokens}"
        raise InputError("data.max_tokens is too long", value=recipe.data.max_tokens, remedy=remedy)
    audio.connect(text)
    adapt(audio, recipe.lora.audio)
    adapt(text, recipe.lora.text)
    head = build_head(recipe.head, audio.dim, text.dim)
    model = RetrievalModel(audio, text, head, sample_dropout=recipe.engine.dropout == "sample")
    return model, build_loss(recipe.loss)


def make_task(recipe: Recipe, captions: Iterable[str]) -> RetrievalTask:
    """The task that a recipe describes, with its teachers; arguments as of `assemble`."""
    model, loss = assemble(recipe, captions)
    student, teachers = AudioInput.of(model.audio), []
    if recipe.distillation is not None:
        teachers = [open_teacher(name, student, recipe.data) for name in recipe.distillation.teachers]
    return RetrievalTask(model, loss, recipe.loss.name, recipe.distillation, teachers, recipe.alignment.weight)
