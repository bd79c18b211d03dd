"""From a recipe to a model and a loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from sharding.common.errors import InputError
from training.config.sections import Recipe
from training.data.captions import normalise
from training.data.mixture import select_rows
from training.data.settings import DataSettings
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, encoder_module
from training.models.encoders.lora import adapt
from training.models.heads import build_head
from training.models.retrieval import RetrievalModel
from training.objectives.pairs import build_loss
from training.objectives.pairs.base import PairLoss

TOKENIZER = "tokenizer"  # folder of a run or an export


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
    if text.max_tokens is not None and recipe.data.max_tokens > text.max_tokens:
        remedy = f"the text encoder reads at most {text.max_tokens}"
        raise InputError("data.max_tokens is too long", value=recipe.data.max_tokens, remedy=remedy)
    adapt(audio, recipe.lora.audio)
    adapt(text, recipe.lora.text)
    model = RetrievalModel(audio, text, build_head(recipe.head, audio.dim, text.dim))
    return model, build_loss(recipe.loss)
