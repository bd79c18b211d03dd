"""Moments: retrieval whose captions with times also find the windows of recordings that they describe.

    L = (the section `loss` over captions and clips)
      + weight * (`training.objectives.pairs.moments` over captions and windows)

The windows are the segments of the audio encoder, ``audio.hop_s`` apart, each scored by the head as a clip of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.config.checks import require
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.moments import TICKS, CaptionTimes, moments_of
from training.data.sampling.mixture import select_rows
from training.data.sound.features import AudioInput
from training.data.sources import open_clips, training_captions
from training.models.encoders import EncodedAudio
from training.models.encoders.randomness import splitmix64
from training.models.heads.base import Side
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.moments import MomentNCE, caption_words, window_words
from training.objectives.pairs.moments import Settings as LossSettings
from training.objectives.pairs.relations import batch_ids, stack_ids
from training.objectives.pairs.tiled import Items
from training.tasks import retrieval
from training.tasks.base import Outputs, PairTerm
from training.tasks.retrieval import METRICS, RetrievalTask, assemble, blank, complete

__all__ = ["METRICS", "SECTIONS", "Settings", "blank", "complete", "make_task", "open_source"]

SECTIONS = ("audio", "text", "head", "loss")
CAPTIONS, WINDOWS, MOMENTS = "timed captions", "windows", "moments"  # names of the sides, and of the term
WINDOW = 0x57494E44  # purpose of a hash: dropout on windows
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """The loss between captions and windows, and its weight beside the loss between captions and clips."""

    name: Literal["moments"]
    weight: float = 1.0
    moments: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        require(self.weight > 0, "weight must be positive; the task retrieval has no such loss", self.weight)


class MomentTask(RetrievalTask):
    """A retrieval model, its loss over captions and clips, and one over captions with times and windows.

    Args:
        model: two encoders and a head.
        loss: over captions and clips.
        name: the name of that loss in the log.
        settings: the loss between captions and windows, and its weight.
        times: which part of its recording each caption describes.
    """

    def __init__(
        self, model: RetrievalModel, loss: PairLoss, name: str, settings: Settings, times: CaptionTimes
    ) -> None:
        super().__init__(model, loss, name)
        self.settings, self.times = settings, times
        self.moments = MomentNCE(settings.moments)

    def forward(self, batch: Batch) -> Outputs:
        found, ids = self.model(batch), batch_ids(batch)
        intervals = torch.from_numpy(self.times.words(batch.clip.tolist(), batch.texts)).to(batch.clip.device)
        timed = stack_ids(batch.clip, batch.caption, batch.group, batch.kin, caption_words(batch.clip, intervals))
        sides = {
            retrieval.TEXT: Items(tuple(found.text_side), ids),
            retrieval.AUDIO: Items(tuple(found.audio_side), ids),
            CAPTIONS: Items(tuple(found.text_side), timed),
            WINDOWS: self._windows(batch, found.audio),
        }
        return Outputs(sides)

    def _windows(self, batch: Batch, audio: EncodedAudio) -> Items:
        """The windows of a batch, each as a clip of one segment, with its place in its recording."""
        heard = AudioInput.of(self.model.audio)
        clip, segment = audio.segment_mask.nonzero(as_tuple=True)
        start = batch.heard_s[clip, 0] + segment * heard.hop_s
        end = torch.minimum(start + heard.segment_s, batch.heard_s[clip, 1])
        ticks = [(TICKS * seconds).round().to(torch.int64) for seconds in (start, end)]
        words = window_words(batch.clip[clip], *ticks)
        ids = stack_ids(batch.clip[clip], batch.caption[clip], batch.group[clip], batch.kin[clip], words)
        seeds = splitmix64(batch.seeds[clip], segment + WINDOW)
        with self.model.dropout(seeds):
            side: Side = self.model.head.audio_side(_alone(audio, clip, segment))
        return Items(tuple(side), ids)

    def terms(self) -> dict[str, PairTerm]:
        windows = PairTerm(CAPTIONS, WINDOWS, self.model.head, self.moments, self.settings.weight)
        return super().terms() | {MOMENTS: windows}


def _alone(audio: EncodedAudio, clip: Tensor, segment: Tensor) -> EncodedAudio:
    """Segments of clips, each as if it was a clip of its own."""
    one = torch.ones_like(clip[:, None], dtype=torch.bool)
    if audio.tokens is None or audio.token_mask is None:
        return EncodedAudio(audio.segments[clip, segment][:, None], one)
    places = (audio.segment_mask.shape[1], -1)
    tokens, mask = (each.unflatten(1, places)[clip, segment] for each in (audio.tokens, audio.token_mask))
    return EncodedAudio(audio.segments[clip, segment][:, None], one, tokens, mask)


def make_task(recipe: Recipe, source: Any, trust_code: bool = False) -> MomentTask:
    """The task that a recipe describes.

    Raises:
        InputError: the training data have no captions with times, or a section has no meaning here.
    """
    for key, present in {"alignment": recipe.alignment.weight > 0, "distillation": recipe.distillation}.items():
        if present:
            remedy = "remove it from the recipe"
            raise InputError(f"{key} is refused with the task moments, which has no such term", remedy=remedy)
    tables = [source.table.filter(pa.array(select_rows(source.table, item.split))) for item in recipe.data.train]
    moments = [moment for table in tables for moment in moments_of(table, recipe.data)]
    if not moments:
        raise InputError(
            "the training data have no captions with times",
            value=", ".join(item.split for item in recipe.data.train),
            remedy="TACOS has them (--tacos DIR); in a table of your own, onset and offset are times (README)",
        )
    model, loss = assemble(recipe, training_captions(source.table, recipe.data))
    return MomentTask(model, loss, recipe.loss.name, recipe.task, CaptionTimes(moments))
