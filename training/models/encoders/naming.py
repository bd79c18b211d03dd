"""A name of an encoder that depends on everything that decides its vectors, its input aside."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from torch import nn

from training.config.resolved import to_tree
from training.config.sections import Recipe
from training.models.encoders.outside import contents, is_outside

_PLACES = ("source", "tokenizer")  # where weights and vocabulary came from; both are compared themselves


def encoder_name(recipe: Recipe, part: str, encoder: nn.Module, tokenizer: Any) -> str:
    """The name of a model's ``audio`` or ``text`` encoder: two encoders of one name give the same vectors.

    Args:
        recipe: the recipe of the model.
        part: ``audio`` or ``text``.
        encoder: with its weights, before DeepSpeed shards them.
        tokenizer: the tokenizer of the text encoder; the audio encoder does without.
    """
    name = hashlib.blake2b(digest_size=16)
    settings = getattr(recipe, part)
    described = {key: value for key, value in to_tree(recipe)[part].items() if key not in _PLACES}
    code = contents(settings.encoder) if is_outside(settings.encoder) else ""
    words = [recipe.data.max_tokens, *sorted(tokenizer.get_vocab().items())] if part == "text" else []
    name.update(json.dumps([described, code, words], sort_keys=True).encode())
    for key, tensor in sorted(encoder.state_dict().items()):
        name.update(f"{key} {tuple(tensor.shape)}".encode())
        name.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).data)
    return name.hexdigest()
