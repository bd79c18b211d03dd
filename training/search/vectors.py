"""The vectors by which sounds are found, and what tells two models apart."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import xxhash

from sharding.common.errors import InputError
from training.models.heads.base import Side
from training.models.retriever import Retriever


def fingerprint(retriever: Retriever) -> str:
    """A hash of all that decides a model's vectors: weights, sizes, front end, and the spelling of captions."""
    digest = xxhash.xxh3_128()
    data, audio = retriever.recipe.data, retriever.audio_input
    spelling = (data.lower, data.strip_punctuation, data.max_tokens)
    scored = retriever.recipe.head or retriever.recipe.task  # a task without a head scores in its own way
    digest.update(repr((asdict(audio), spelling, asdict(scored))).encode())
    for name, tensor in sorted(retriever.model.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def first_stage(head: Any, text: Side, audio: Side) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of texts and of sounds whose dot products find the candidates; see `Head.first_stage`.

    Raises:
        InputError: the head has none.
    """
    with torch.no_grad():
        found = head.first_stage(text, audio, head.shared())
    if found is None:
        raise InputError(
            "a head without vectors of clips alone cannot be searched by an index",
            value=type(head).__name__,
            remedy="give it a first_stage; see docs/EVALUATION.md",
        )
    return found[0].float(), found[1].float()


def is_exact(head: Any, side: Side) -> bool:
    """Whether the dot products of the vectors are the scores."""
    return head.embedding(side) is not None
