"""Tokenizers that spell texts as a recipe says, for programs that know no recipe."""

from __future__ import annotations

import copy
from typing import Any

from training.data.settings import DataSettings


def spelling_tokenizer(tokenizer: Any, data: DataSettings) -> Any:
    """A copy of a tokenizer that spells and cuts texts as the recipe says (`training.data.captions`).

    It is of the general class of transformers, because those of single models, such as ``BertTokenizer``, put a
    normalizer of their own in place of the one that was saved.
    """
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast

    # A copy without what earlier calls left: a processor would take its length for that of the sound.
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    steps: list[Any] = [normalizers.Lowercase()] if data.lower else []
    if data.strip_punctuation:
        steps.append(normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=data.max_tokens,
        model_input_names=["input_ids", "attention_mask"],
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    )
