"""Captions as a model reads them."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.data.hashing import below, mix
from training.data.settings import DataSettings

CAPTION = 0x43415054  # purpose of a hash: which of several captions
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, settings: DataSettings) -> str:
    """A caption in the recipe's spelling: case, punctuation, single spaces."""
    if settings.lower:
        text = text.lower()
    if settings.strip_punctuation:
        text = text.translate(_NO_PUNCTUATION)
    return " ".join(text.split())


def choose_caption(
    captions: Sequence[Mapping[str, Any]], kinds: Sequence[str], clip: int, turn: int, seed: int, epoch: int, rule: str
) -> Mapping[str, Any]:
    """The caption of a clip that an epoch reads.

    Args:
        captions: the manifest's captions of the clip; at least one is of a kind in ``kinds``.
        clip: stable id of the clip.
        turn: pass over the pool, so that a clip drawn twice in an epoch is drawn afresh.
        rule: ``random`` draws anew each time; ``rotate`` goes through all captions before one comes again,
            from another start for each clip; ``first`` is the first one always.
    """
    fitting = [caption for caption in captions if caption["kind"] in kinds]
    if rule == "first" or len(fitting) == 1:
        return fitting[0]
    if rule == "rotate":
        return fitting[(int(below(mix(CAPTION, seed, clip), len(fitting))) + turn) % len(fitting)]
    return fitting[int(below(mix(CAPTION, seed, epoch, clip, turn), np.int64(len(fitting))))]
