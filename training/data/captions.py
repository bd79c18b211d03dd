"""Captions in the form that a model reads."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from training.data.settings import DataSettings

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, settings: DataSettings) -> str:
    """A caption in the recipe's spelling: its case and punctuation as the settings say, with single spaces."""
    if settings.lower:
        text = text.lower()
    if settings.strip_punctuation:
        text = text.translate(_NO_PUNCTUATION)
    return " ".join(text.split())


def label_prompt(template: str, labels: Sequence[str]) -> str:
    """A text of labels: ``This is a sound of {}`` and A, B, C give ``This is a sound of A, B, and C``.

    CoLLAT, section 4.1.
    """
    if len(labels) < 3:
        return template.replace("{}", " and ".join(labels))
    return template.replace("{}", ", ".join(labels[:-1]) + f", and {labels[-1]}")


def tokenise(tokenizer: Any, texts: list[str], settings: DataSettings) -> tuple[Tensor, Tensor]:
    """Captions ``[b]`` as tokens ``[b, N]`` int64, cut at ``max_tokens`` and padded, and their mask ``[b, N]``."""
    out = tokenizer(texts, padding=True, truncation=True, max_length=settings.max_tokens, return_tensors="pt")
    return out["input_ids"], out["attention_mask"].bool()


def choose_caption(
    captions: Sequence[Mapping[str, Any]], rule: str, chance: float, start: float, pass_number: int
) -> Mapping[str, Any]:
    """The caption of a clip that an epoch uses.

    Args:
        captions: the clip's captions of the kinds that the mixture asks for; at least one.
        rule: ``random`` chooses one anew each time; ``rotate`` uses every caption once before any is used
            again; ``first`` always uses the first one.
        chance: uniform in [0, 1), drawn anew each time, for ``random``.
        start: uniform in [0, 1), fixed for each clip: the caption with which ``rotate`` begins.
        pass_number: how many passes over the clips came before this one.
    """
    if rule == "rotate":
        return captions[(int(start * len(captions)) + pass_number) % len(captions)]
    return captions[int(chance * len(captions)) if rule == "random" else 0]
