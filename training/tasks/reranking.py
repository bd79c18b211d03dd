"""Re-ranking: a multimodal language model learns to say whether a caption and a clip match (AuroLA, arXiv 2602.18010).

Every sample gives two pairs: its clip with its caption, and its clip with a wrong caption.  In half of the samples the
sound is the query and the caption the candidate, in the other half the reverse.  The loss is the cross-entropy of the
first token of the answer, Yes or No.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.loader import Loader
from training.data.negatives import Negatives
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.data.sources import open_clips, training_captions
from training.engine.distributed import Group
from training.evaluation.encoding import RoundRobinOrder
from training.models.encoders.randomness import splitmix64
from training.models.retriever import Retriever
from training.reranking.model import RerankModel, Sounds
from training.tasks import retrieval
from training.tasks.base import LocalSum, Outputs, RunTask

SECTIONS = ("audio", "text", "head", "loss")
METRICS = ("accuracy", "log_likelihood")
LOSS = "yes or no"  # name of the local term
WAY = 0x574159  # purpose of a hash: whether the sound or the caption is the query
open_source = open_clips


@dataclass(frozen=True)
class Settings:
    """The choice of wrong captions; ``head`` and ``loss`` are those of the retriever, which are not trained here."""

    name: Literal["reranking"]
    negatives: str | None = None  # a file from `mine`; null: captions of other clips


@dataclass(frozen=True)
class PairedBatch(Batch):
    """Clips with two captions each, one right and one wrong.

    Attributes:
        before, before_mask: ``[b, 2, N]``, the tokens before the sound, for the right and for the wrong caption.
        after, after_mask: ``[b, 2, M]``, those after it.
        has_wrong: ``[b]`` bool, whether there is a wrong caption.
    """

    before: Tensor
    before_mask: Tensor
    after: Tensor
    after_mask: Tensor
    has_wrong: Tensor

    def placeholder(self) -> PairedBatch:
        """One segment of silence between two tokens."""
        empty = super().placeholder()
        empty.before_mask[..., 0] = True
        empty.after_mask[..., 0] = True
        return empty


class PairedLoader(Loader):
    """A loader whose batches have prompts around right and wrong captions; arguments as of `Loader`.

    Args:
        model: whose prompts they are.
        negatives: the wrong captions.
    """

    def __init__(self, model: RerankModel, negatives: Negatives, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._model, self._negatives = model, negatives

    def _on_device(self, batch: Batch) -> PairedBatch:
        return self._paired(super()._on_device(batch))

    def _paired(self, batch: Batch) -> PairedBatch:
        values: dict[str, Any] = {each.name: getattr(batch, each.name) for each in fields(Batch)}
        columns = zip(*(getattr(batch, name).tolist() for name in ("clip", "group", "kin", "seeds")), strict=True)
        wrong = [
            self._negatives.draw(clip, group, kin, text, seed)
            for (clip, group, kin, seed), text in zip(columns, batch.texts, strict=True)
        ]
        by_audio = by_audio_of(batch.seeds).tolist()
        device, count = batch.seeds.device, len(batch)
        prompts: dict[str, Any] = {}
        if count:
            texts = [text for pair in zip(batch.texts, wrong, strict=True) for text in (pair[0], pair[1] or "")]
            texts = self._model.text.tokenizer.cut(texts, self.settings.max_tokens)
            found = self._model.prompts(texts, [way for way in by_audio for _ in range(2)])
        for number, name in enumerate(("before", "after")):
            tokens = found[number]["input_ids"] if count else torch.zeros(0, 1, dtype=torch.int64)
            mask = found[number]["attention_mask"].bool() if count else torch.zeros(0, 1, dtype=torch.bool)
            prompts[name] = tokens.view(count, 2, tokens.shape[1]).to(device)
            prompts[f"{name}_mask"] = mask.view(count, 2, mask.shape[1]).to(device)
        has_wrong = torch.tensor([each is not None for each in wrong], dtype=torch.bool, device=device)
        return PairedBatch(**values, **prompts, has_wrong=has_wrong)


def by_audio_of(seeds: Tensor) -> Tensor:
    """Whether the sound is the query of each sample, from its seed: bool ``[b]``."""
    return splitmix64(seeds, torch.full_like(seeds, WAY)) % 2 == 0


class RerankingTask(RunTask):
    """A re-ranker and the cross-entropy of its answers.

    Args:
        retriever: whose encoders are asked; its head is kept as it is.
        negatives: the wrong captions.
    """

    def __init__(self, retriever: Retriever, negatives: Negatives) -> None:
        super().__init__()
        self.model, self.negatives = retriever.model, negatives
        self.loss = retriever.loss  # kept for the export, which is a retriever too
        self.model.head.requires_grad_(False)
        self.loss.requires_grad_(False)
        self._reranker = (RerankModel(retriever.model.audio, retriever.model.text),)  # type: ignore[arg-type]

    @property
    def reranker(self) -> RerankModel:
        """The re-ranker that answers; its parameters are those of `model`."""
        return self._reranker[0]

    @property
    def tokenizer(self) -> Any:
        return self.model.text.tokenizer

    def forward(self, batch: PairedBatch) -> Outputs:
        losses, _, counts = self.answers(batch)
        return Outputs(local={LOSS: LocalSum((losses * counts).sum(), counts.sum())})

    def answers(self, batch: PairedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """For the two pairs of each sample, ``[2 b]``: the loss, whether the answer is right, and whether it counts."""
        model = self.reranker
        sounds = model.listen(batch.features, batch.frames)
        twice = Sounds(sounds.tokens.repeat_interleave(2, 0), sounds.heard.repeat_interleave(2, 0))
        prompts = (batch.before, batch.before_mask, batch.after, batch.after_mask)
        logits = model(twice, *(piece.flatten(0, 1) for piece in prompts)).float()
        yes, no = model.answers
        wanted = torch.tensor([yes, no], device=logits.device).repeat(len(batch))
        right = logits.gather(1, wanted[:, None])[:, 0] > logits.gather(1, yes + no - wanted[:, None])[:, 0]
        counts = torch.stack((torch.ones_like(batch.has_wrong), batch.has_wrong), 1).flatten()
        return F.cross_entropy(logits, wanted, reduction="none"), right, counts

    def loader(
        self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device
    ) -> PairedLoader:
        audio = AudioInput.of(self.model.audio)
        own = (self.reranker, self.negatives)
        return PairedLoader(*own, source, order, settings, audio, self.tokenizer, group.rank, group.size, device=device)

    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        """Accuracy, and the log-likelihood of the right answer, over all clips with their first and a wrong caption."""
        asked = recipe.validation
        assert asked.split is not None
        order = RoundRobinOrder(
            SequentialOrder(source.table, asked.split, recipe.data, asked.batch), group.rank, group.size
        )
        audio = AudioInput.of(self.model.audio)
        own = (self.reranker, self.negatives)
        loader = PairedLoader(*own, source, order, recipe.data, audio, self.tokenizer, train=False)
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in loader.epoch(0):
            full = (batch if len(batch) else batch.placeholder()).to(engine.device)
            losses, right, counts = engine.infer(lambda task, full=full: task.answers(full))
            found = torch.stack(((losses * counts).sum(), (right & counts).sum().to(losses), counts.sum().to(losses)))
            sums += found.double().cpu() * bool(len(batch))
        loss, correct, count = group.sum(sums, "figures of a validation").tolist()
        return {"accuracy": correct / max(count, 1.0), "log_likelihood": -loss / max(count, 1.0)}

    def towers(self) -> dict[str, Any]:
        return {"audio": self.model.audio, "text": self.model.text}


def complete(recipe: Recipe, source: Any) -> Recipe:
    """The recipe; the data decide nothing of it."""
    return recipe


def make_task(recipe: Recipe, source: Any, trust_code: bool = False) -> RerankingTask:
    """The task that a recipe describes; ``InputError`` if its encoders are no multimodal language model."""
    for part in (recipe.audio, recipe.text):
        if part.encoder != "multimodal":
            remedy = "set audio.encoder and text.encoder to multimodal"
            raise InputError("a re-ranker must be a multimodal language model", value=part.encoder, remedy=remedy)
    retriever = blank(recipe, training_captions(source.table, recipe.data))
    return RerankingTask(retriever, Negatives.of(source.table, recipe.data, recipe.task.negatives))


def blank(recipe: Recipe, texts: Iterable[str]) -> Retriever:
    """The retriever whose encoders the re-ranker asks, with random weights."""
    return retrieval.blank(recipe, texts)
