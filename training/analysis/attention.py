"""Where in a clip the tokens of a caption look (Calvet and Toledano 2025, eqs. 2 and 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.data.captions import tokenise
from training.data.sound.features import AudioInput
from training.models.heads.base import Side
from training.models.heads.token_attention import TokenAttention


@dataclass(frozen=True)
class Attention:
    """The attention of a caption to a clip.

    Attributes:
        tokens: the caption's tokens, or one entry for the whole caption.
        times: start and end of each segment in seconds.
        weights: ``[tokens, segments]``, the mean over heads; each row sums to 1.
    """

    tokens: list[str]
    times: list[tuple[float, float]]
    weights: npt.NDArray[np.float64]


def attention(retriever: Any, caption: str, audio: Side, seconds: float) -> Attention | None:
    """The attention of a caption, as the model reads it, to one clip.

    Args:
        retriever: the model.
        caption: in the recipe's spelling.
        audio: the side of the clip, a batch of 1.
        seconds: how much of the clip the model heard.

    Returns:
        None if the head does not attend to segments of the clip: other heads, and patches, whose order in time
        each encoder has for itself.
    """
    head = retriever.model.head
    if not isinstance(head, TokenAttention) or head.uses_patches:
        return None
    tokens, mask = tokenise(retriever.tokenizer, [caption], retriever.recipe.data)
    with torch.no_grad():
        text = retriever.model.text_side(tokens.to(retriever.device), mask.to(retriever.device))
    query, keys, there = text[0][0].cpu().float(), audio[0][0].cpu().float(), audio[2][0].cpu()
    parts = [each.unflatten(-1, (head.heads, -1)).transpose(0, 1) for each in (query, keys)]
    products = parts[0] @ parts[1].transpose(1, 2) / math.sqrt(parts[0].shape[-1])
    logits = products.masked_fill(~there, torch.finfo(torch.float32).min)
    weights = logits.softmax(-1).mean(0)[:, there].double().numpy()
    words = ["whole caption"]
    if len(query) > 1:
        real = mask[0]
        words = [_readable(retriever.tokenizer, int(token)) for token in tokens[0][real]]
        weights = weights[real.numpy()]
    return Attention(words, _times(retriever.audio_input, weights.shape[1], seconds), weights)


def _readable(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).strip() or tokenizer.convert_ids_to_tokens(token)


def _times(audio: AudioInput, segments: int, seconds: float) -> list[tuple[float, float]]:
    starts = [number * audio.hop_s for number in range(segments)]
    return [(start, min(start + audio.segment_s, max(seconds, start))) for start in starts]
