"""Captions as a model reads them."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from training.data.settings import DataSettings

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, settings: DataSettings) -> str:
    """A caption in the recipe's spelling: case, punctuation, single spaces."""
    if settings.lower:
        text = text.lower()
    if settings.strip_punctuation:
        text = text.translate(_NO_PUNCTUATION)
    return " ".join(text.split())


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
