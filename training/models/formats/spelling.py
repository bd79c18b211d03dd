"""Tokenizers that spell texts as a recipe says, for programs that know no recipe."""

from __future__ import annotations

import copy
from typing import Any

from training.data.settings import DataSettings


def spelling_tokenizer(tokenizer: Any, data: DataSettings) -> Any:
    """A copy of a tokenizer that spells and cuts texts as the recipe says (`training.data.captions`)."""
    from tokenizers import Regex, normalizers

    copied = copy.deepcopy(tokenizer)
    copied.model_max_length = data.max_tokens
    steps: list[Any] = [normalizers.Lowercase()] if data.lower else []
    if data.strip_punctuation:
        steps.append(normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend = copied.backend_tokenizer
    # What earlier calls left would be saved, and a processor would take its length for that of the sound.
    backend.no_truncation()
    backend.no_padding()
    for name in ("max_length", "stride", "truncation_side", "truncation_strategy", "padding"):
        copied.init_kwargs.pop(name, None)
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)
    return copied
