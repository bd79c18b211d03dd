"""Captions as a model reads them."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from training.data.settings import DataSettings

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, settings: DataSettings) -> str:
    """A caption in the recipe's spelling: case, punctuation, single spaces."""
    if settings.lower:
        text = text.lower()
    if settings.strip_punctuation:
        text = text.translate(_NO_PUNCTUATION)
    return " ".join(text.split())


def tokenise(tokenizer: Any, texts: list[str], settings: DataSettings) -> tuple[Tensor, Tensor]:
    """Captions ``[b]`` as tokens ``[b, N]`` int64, cut at ``max_tokens`` and padded, and their mask ``[b, N]``."""
    out = tokenizer(texts, padding=True, truncation=True, max_length=settings.max_tokens, return_tensors="pt")
    return out["input_ids"], out["attention_mask"].bool()


def choose_caption(
    captions: Sequence[Mapping[str, Any]], rule: str, chance: float, start: float, turn: int
) -> Mapping[str, Any]:
    """The caption of a clip that an epoch reads.

    Args:
        captions: those of the kinds that the mixture wants; at least one.
        rule: ``random`` takes the place ``chance``, drawn anew each time; ``rotate`` goes through all
            captions before one comes again, from the clip's own ``start``; ``first`` is the first one always.
        turn: how often the clip's pool was gone through before.
    """
    if rule == "rotate":
        return captions[(int(start * len(captions)) + turn) % len(captions)]
    return captions[int(chance * len(captions)) if rule == "random" else 0]
