"""Captioning: a decoder learns to write captions from a clip's vectors, on a frozen encoder or one that is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import check_dropout, require
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.loader import Loader
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.data.sources import open_clips, training_captions
from training.engine.distributed import Group
from training.evaluation.encoding import infer_clips
from training.models.build import build_audio
from training.models.captioner import CaptionDecoder, Captioner, CaptionerModel
from training.models.encoders.published import load_tokenizer
from training.models.encoders.text.tokenizer import train_tokenizer
from training.tasks.base import LocalSum, Outputs, RunTask

SECTIONS = ("audio",)
METRICS = ("log_likelihood", "token_accuracy")
LOSS = "captions"  # name of the local term
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """The decoder; ``optimizer.freeze: [audio.*]`` keeps the encoder as it is."""

    name: Literal["captioning"]
    width: int = 256
    depth: int = 1
    heads: int = 4
    dropout: float = 0.1
    vocabulary: int = 5000  # tokens of a tokenizer that is trained on the captions
    tokenizer: str | None = None  # a transformers tokenizer by hub name or folder; null: one is trained

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "vocabulary"):
            require(getattr(self, name) >= 1, f"{name} must be positive", getattr(self, name))
        require(self.width % self.heads == 0, "heads must divide width", (self.width, self.heads))
        check_dropout(self, "dropout")


class CaptioningTask(RunTask):
    """A captioner and the cross-entropy of each token of a caption, given the clip and the tokens before it."""

    def __init__(self, model: CaptionerModel, tokenizer: Any) -> None:
        super().__init__()
        self.model, self._tokenizer = model, tokenizer

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def forward(self, batch: Batch) -> Outputs:
        losses, _, mask = self._tokens(batch)
        return Outputs(local={LOSS: LocalSum((losses * mask).sum(), mask.sum())})

    def _tokens(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """For each token but the first: its loss, whether it was the most probable, and whether it counts."""
        logits = self.model(batch).float()
        wanted, mask = batch.tokens[:, 1:], batch.token_mask[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
        return losses, logits.argmax(-1) == wanted, mask

    def loader(self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device) -> Loader:
        audio = AudioInput.of(self.model.audio)
        return Loader(source, order, settings, audio, self.tokenizer, group.rank, group.size, device=device)

    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        """Log-likelihood and accuracy of a token, the mean over all tokens of the clips' first captions."""
        asked = recipe.validation
        assert asked.split is not None
        order = SequentialOrder(source.table, asked.split, recipe.data, asked.batch)

        def call(task: Any, batch: Batch) -> list[tuple[float, float, float]]:
            losses, right, mask = task._tokens(batch)
            rows = ((losses * mask).sum(1), (right & mask).sum(1).float(), mask.sum(1).float())
            return list(zip(*(row.tolist() for row in rows), strict=True))

        audio = AudioInput.of(self.model.audio)
        found = infer_clips(engine, call, source, order, audio, self.tokenizer, group)
        loss, right, count = (sum(values) for values in zip(*found, strict=True))
        return {"log_likelihood": -loss / max(count, 1.0), "token_accuracy": right / max(count, 1.0)}

    def towers(self) -> dict[str, Any]:
        return {"audio": self.model.audio}


def complete(recipe: Recipe, source: Any) -> Recipe:
    """The recipe; the data decide nothing of it."""
    return recipe


def make_task(recipe: Recipe, source: Any, trust_code: bool = False) -> CaptioningTask:
    """The task that a recipe describes; a tokenizer is trained on the source's captions where the recipe names none."""
    captioner = blank(recipe, training_captions(source.table, recipe.data))
    return CaptioningTask(captioner.model, captioner.tokenizer)


def blank(recipe: Recipe, texts: Iterable[str]) -> Captioner:
    """A captioner with random weights."""
    torch.manual_seed(recipe.seed)
    settings: Settings = recipe.task
    audio = build_audio(recipe)
    if settings.tokenizer is None:
        tokenizer = train_tokenizer(texts, settings.vocabulary)
    else:
        tokenizer = load_tokenizer(settings.tokenizer)
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise InputError(
            "a captioner's tokenizer needs tokens that begin and end a caption",
            value=settings.tokenizer,
            remedy="leave out task.tokenizer, so that one is trained",
        )
    sizes = (settings.width, settings.depth, settings.heads, settings.dropout, recipe.data.max_tokens)
    model = CaptionerModel(audio, CaptionDecoder(audio.dim, len(tokenizer), *sizes), recipe.engine.dropout == "sample")
    return Captioner(model, nn.Module(), recipe, tokenizer)
