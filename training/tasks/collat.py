"""CoLLAT: sounds are written into the token space of a locked text encoder (Silva et al. 2023).

    L = lambda_1 L_cross-token + lambda_2 L_cross-global + lambda_3 L_uni-token                              (eq. 4)

- L_cross-token (eq. 1): the predicted token embeddings of a clip lie near those of its text, whatever their order;
- L_cross-global (eq. 2): the vector of a clip and that of its text find each other among all pairs of the global batch;
- L_uni-token (eq. 3): the predicted token embeddings stay where they are when noise is added to the spectrogram.

The model is `training.models.collat.locked_text`.  What the paper leaves open is a setting, for which
``docs/METHODS.md`` gives reasons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.checks import require
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.sources import open_clips, training_captions
from training.models.build import build_audio, build_text
from training.models.collat.interaction import InteractionSettings, TokenInteraction
from training.models.collat.locked_text import LockedTextModel, WrittenClips
from training.models.collat.token_space import Ends, ReadText, TokenSpace
from training.models.encoders import Place
from training.models.encoders.randomness import noisy
from training.models.retriever import Retriever
from training.objectives.local.token_matching import Matching, Unit, counted, difference, matched_difference
from training.objectives.pairs import build_loss
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.relations import batch_ids
from training.objectives.pairs.tiled import Items
from training.tasks.base import LocalSum, Outputs, PairTerm
from training.tasks.retrieval import AUDIO, METRICS, TEXT, RetrievalTask, complete

__all__ = ["METRICS", "SECTIONS", "Settings", "blank", "complete", "make_task", "open_source"]

SECTIONS = ("audio", "text", "loss")
TOKENS, NOISE = "tokens", "tokens under noise"  # names of the local terms
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """The terms of CoLLAT's loss, and what its paper leaves open."""

    name: Literal["collat"]
    token_weight: float = 1.0  # lambda_1, of the distance between predicted and true token embeddings
    global_weight: float = 0.1  # lambda_2, of the loss over all pairs, which the section `loss` chooses
    # lambda_3, of the distance between predictions with and without noise; 0: clips are not heard a second time
    noise_weight: float = 0.01
    sigma: float = 0.1  # standard deviation of the noise on the features
    tokens: int | None = None  # how many token embeddings are predicted; null: as many as the longest text has
    interaction: InteractionSettings = field(default_factory=InteractionSettings)
    ends: Ends = "given"  # the encoder's own begin and end tokens stand around the predictions; or "predicted"
    place: Place = "before"  # of the encoder's positions: where predictions enter
    layer: int = 0  # at which tokens are compared: 0 where they enter, L after block L
    matching: Matching = "greedy"
    padding: bool = False  # whether padding is matched too, so that every prediction has a token
    unit: Unit = "mean"  # what the L1 distances are averaged over: clips ("sum"), tokens, or single numbers ("mean")

    def __post_init__(self) -> None:
        weights = (self.token_weight, self.global_weight, self.noise_weight)
        require(all(weight >= 0 for weight in weights), "weights must not be negative", weights)
        require(self.token_weight + self.global_weight > 0, "token_weight or global_weight must be positive", weights)
        require(self.sigma > 0, "sigma must be positive; noise_weight: 0 leaves the noise out", self.sigma)
        require(self.tokens is None or self.tokens > 0, "tokens must be positive", self.tokens)


class CollatTask(RetrievalTask):
    """A model whose sounds a locked text encoder reads, and the three terms of CoLLAT's loss.

    Args:
        model: see `training.models.collat.locked_text`.
        loss: over all pairs of the global batch.
        name: the name of that loss in the log.
        settings: the weights, and what the paper leaves open.
    """

    model: LockedTextModel

    def __init__(self, model: LockedTextModel, loss: PairLoss, name: str, settings: Settings) -> None:
        super().__init__(model, loss, name)
        self.settings = settings

    def forward(self, batch: Batch) -> Outputs:
        model, ids = self.model, batch_ids(batch)
        tokens, mask = self._padded(batch.tokens, batch.token_mask)
        text = model.space.encode(tokens, mask)
        clips = model.write(batch.features, batch.frames, batch.seeds)
        sides = {
            TEXT: Items(model.head.text_side(text.encoded), ids),
            AUDIO: Items(model.head.audio_side(clips.encoded), ids),
        }
        local = {}
        if self.settings.token_weight:
            local[TOKENS] = self._token_loss(text, mask, clips)
        if self.settings.noise_weight:
            local[NOISE] = self._noise_loss(batch, clips)
        return Outputs(sides, local)

    def _padded(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Texts of ``[b, N]`` tokens with as much padding as there are predictions, where padding is matched."""
        space = self.model.space
        if not self.settings.padding:
            return tokens, mask
        missing = self.model.interaction.count + space.given - tokens.shape[1]
        return F.pad(tokens, (0, missing), value=space.text.tokenizer.pad_token_id), F.pad(mask, (0, missing))

    def _token_loss(self, text: ReadText, mask: Tensor, clips: WrittenClips) -> LocalSum:
        """Eq. 1."""
        settings = self.settings
        compared = self.model.space.compared(mask, settings.padding)
        found = matched_difference(text.layer, compared, clips.read.layer, settings.matching, settings.unit)
        return LocalSum(*found)

    def _noise_loss(self, batch: Batch, clips: WrittenClips) -> LocalSum:
        """Eq. 3: the same clips, heard with noise."""
        features, frames = self.second_view(batch), batch.frames
        if self.settings.layer:
            other = self.model.write(features, frames, batch.seeds).read.layer
        else:
            other = self.model.predict(features, frames, batch.seeds)
        everything = torch.ones(other.shape[:2], dtype=torch.bool, device=other.device)
        total = difference(clips.read.layer, other, everything)
        return LocalSum(total, counted(everything, other.shape[-1], self.settings.unit))

    def second_view(self, batch: Batch) -> Tensor:
        """The features ``[b, S, F, T]`` of a batch with Gaussian noise, which follows from the seeds of the samples."""
        return noisy(batch.features, batch.frames, batch.seeds, self.settings.sigma)

    def terms(self) -> dict[str, PairTerm]:
        weight = self.settings.global_weight
        return {self.loss_name: PairTerm(TEXT, AUDIO, self.model.head, self.loss, weight)} if weight else {}

    def weights(self) -> dict[str, float]:
        return {TOKENS: self.settings.token_weight, NOISE: self.settings.noise_weight}


def make_task(recipe: Recipe, source: object, trust_code: bool = False) -> CollatTask:
    """The task that a recipe describes; ``source`` has the texts on which a tokenizer may be trained.

    Raises:
        InputError: a section of the recipe would change the locked text encoder, or has no meaning here.
    """
    model, loss = _assemble(recipe, training_captions(source.table, recipe.data))  # type: ignore[attr-defined]
    return CollatTask(model, loss, recipe.loss.name, recipe.task)


def blank(recipe: Recipe, texts: Iterable[str]) -> Retriever:
    """A retriever with random weights; a tokenizer is trained on ``texts`` where the recipe names none."""
    model, loss = _assemble(recipe, texts)
    return Retriever(model, loss, recipe)


def _assemble(recipe: Recipe, texts: Iterable[str]) -> tuple[LockedTextModel, PairLoss]:
    _refuse(recipe)
    torch.manual_seed(recipe.seed)
    settings: Settings = recipe.task
    audio = build_audio(recipe)
    space = TokenSpace(build_text(recipe, texts), settings.ends, settings.place, settings.layer)
    longest = recipe.data.max_tokens - space.given
    count = longest if settings.tokens is None else settings.tokens
    if count < longest:
        raise InputError(
            "task.tokens is less than the tokens of the longest text, each of which is matched with a prediction",
            value=count,
            remedy=f"set it to {longest} or more, or lower data.max_tokens",
        )
    most = space.text.max_tokens
    if most is not None and count + space.given > most:
        raise InputError("task.tokens is more than the text encoder reads", value=count, remedy=f"{most - space.given}")
    interaction = TokenInteraction(settings.interaction, count, audio.dim, space.examples())
    model = LockedTextModel(audio, interaction, space, sample_dropout=recipe.engine.dropout == "sample")
    return model, build_loss(recipe.loss)


def _refuse(recipe: Recipe) -> None:
    """``InputError`` for what would change the text encoder, or what this task does not have."""
    refused = {
        "lora.text": recipe.lora.text is not None,
        "engine.frozen": recipe.engine.frozen != "fp32",
        "alignment": recipe.alignment.weight > 0,
        "distillation": recipe.distillation is not None,
    }
    for key, present in refused.items():
        if present:
            changes = key in ("lora.text", "engine.frozen")
            why = "it would change the locked text encoder" if changes else "this task has no such term"
            raise InputError(f"{key} is refused with the task collat: {why}", remedy="remove it from the recipe")
