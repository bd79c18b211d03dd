"""Sentence pairs: a text encoder learns from sentences that mean the same, with hard negatives.

Each anchor is scored against every match and every hard negative of the global batch.  A hard negative is a column
that has no positive row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from sharding.common.errors import InputError
from training.config.sections import Recipe
from training.data.captions import normalise, tokenise
from training.data.pairs import PairBatch, PairLoader, SentencePairs
from training.data.sampling.mixture import select_rows
from training.data.settings import DataSettings
from training.data.sources import open_pairs
from training.engine.distributed import Group
from training.evaluation.counting import rank_relevant
from training.evaluation.metrics import MEASURED, metrics
from training.models.build import build_text
from training.models.heads.base import DotProduct
from training.models.sentences import SentenceEncoder, SentenceModel
from training.objectives.pairs import build_loss
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.relations import stack_ids
from training.objectives.pairs.tiled import Items
from training.tasks.base import Outputs, PairTerm, RunTask

SECTIONS = ("text", "loss")
METRICS = tuple(f"anchor_to_match/{name}" for name in MEASURED)
ANCHORS, MATCHES = "anchors", "matches"  # names of the sides
open_source = open_pairs


@dataclass(frozen=True)
class Settings:
    """What is trained on."""

    name: Literal["text_pairs"]
    hard_negatives: bool = True  # false: the column hard_neg is not read


class TextPairsTask(RunTask):
    """A sentence encoder and its loss over all anchors, matches and hard negatives of the global batch."""

    unit = "pairs"

    def __init__(self, model: SentenceModel, loss: PairLoss, name: str, hard_negatives: bool) -> None:
        super().__init__()
        self.model, self.loss, self.loss_name, self.hard_negatives = model, loss, name, hard_negatives

    def forward(self, batch: PairBatch) -> Outputs:
        seeds, ids = batch.seeds, stack_ids(batch.clip, batch.caption, batch.group, batch.kin)
        anchors = self.model(batch.tokens, batch.token_mask, seeds, role=0)
        matches = self.model(batch.match_tokens, batch.match_mask, seeds, role=1)
        columns, column_ids = matches, ids
        if self.hard_negatives:
            # All rows are encoded, so that every rank calls the encoder equally often, as ZeRO-3 needs.
            negatives = self.model(batch.negative_tokens, batch.negative_mask, seeds, role=2)
            columns = torch.cat((matches, negatives[batch.has_negative]))
            column_ids = torch.cat((ids, stack_ids(*(batch.negative,) * 4)[batch.has_negative]))
        return Outputs({ANCHORS: Items((anchors,), ids), MATCHES: Items((columns,), column_ids)})

    def terms(self) -> dict[str, PairTerm]:
        return {self.loss_name: PairTerm(ANCHORS, MATCHES, DotProduct(), self.loss)}

    @property
    def tokenizer(self) -> Any:
        return self.model.text.tokenizer

    def loader(self, source: Any, order: Any, settings: DataSettings, group: Group, device: torch.device) -> PairLoader:
        return PairLoader(source, order, settings, self.tokenizer, group.rank, group.size, device)

    def figures(self, engine: Any, source: Any, recipe: Recipe, group: Group) -> dict[str, float]:
        """How well anchors find their matches among all different matches of the split."""
        asked = recipe.validation
        assert asked.split is not None
        rows = np.flatnonzero(select_rows(source.table, asked.split))
        anchors = [source.table["captions"][int(row)].as_py()[0]["text"] for row in rows]
        matches = [source.matches[row] for row in rows]
        items = sorted(set(matches))
        queries, found = (_vectors(engine, texts, recipe, self.tokenizer) for texts in (anchors, items))
        relevant = np.array(matches)[:, None] == np.array(items)[None, :]
        values = metrics(rank_relevant((queries @ found.t()).numpy(), relevant))
        return {f"anchor_to_match/{name}": value for name, value in values.items()}

    def towers(self) -> dict[str, Any]:
        return {"text": self.model.text}


def _vectors(engine: Any, texts: list[str], recipe: Recipe, tokenizer: Any) -> torch.Tensor:
    """Vectors ``[texts, d]`` in float64 on the CPU; every rank computes all of them."""
    parts = []
    for start in range(0, len(texts), recipe.validation.batch):
        some = [normalise(text, recipe.data) for text in texts[start : start + recipe.validation.batch]]
        tokens, mask = (tensor.to(engine.device) for tensor in tokenise(tokenizer, some, recipe.data))
        vectors = engine.infer(lambda task, tokens=tokens, mask=mask: task.model(tokens, mask))
        parts.append(vectors.double().cpu())
    return torch.cat(parts)


def complete(recipe: Recipe, source: Any) -> Recipe:
    """The recipe; the data decide nothing of it."""
    return recipe


def make_task(recipe: Recipe, source: SentencePairs, trust_code: bool = False) -> TextPairsTask:
    """The task that a recipe describes.

    Raises ``InputError`` if it asks for hard negatives and no table has any.
    """
    if recipe.task.hard_negatives and not any(source.negatives):
        raise InputError(
            "no table of data.texts has hard negatives",
            file=", ".join(recipe.data.texts.values()),
            remedy="fill the column hard_neg, or set task.hard_negatives: false",
        )
    encoder = blank(recipe, [normalise(text, recipe.data) for text in source.sentences()])
    loss: Any = encoder.loss
    return TextPairsTask(encoder.model, loss, recipe.loss.name, recipe.task.hard_negatives)


def blank(recipe: Recipe, texts: Iterable[str]) -> SentenceEncoder:
    """A sentence encoder with random weights; a tokenizer is trained on ``texts`` where the recipe names none."""
    torch.manual_seed(recipe.seed)
    text = build_text(recipe, texts)
    model = SentenceModel(text, sample_dropout=recipe.engine.dropout == "sample")
    return SentenceEncoder(model, build_loss(recipe.loss), recipe)
