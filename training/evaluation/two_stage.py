"""Retrieval in two stages: vectors find the nearest candidates of each query, and the head scores those exactly.

A head with attention scores pairs of a text and a clip.  One query against a million clips would be a million pairs.
The head's `first_stage` gives vectors of texts alone and of clips alone, whose products are near the scores; so only
the nearest k clips of each query are scored exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.models.heads.base import Head, Side, rough_scores, rows_of
from training.objectives.pairs.tiled import score_all

BELOW = 4.0  # more than two scores can differ by: the first stage and the exact scores are in [-1, 1]


def two_stage_scores(
    head: Head, text: Side, audio: Side, candidates: int, by_text: bool = True, shared: Side | None = None
) -> Tensor:
    """Similarities ``[texts, audios]`` on the CPU, exact for the nearest candidates of each query.

    All other items are ranked below every candidate, in the order of the first stage; the values of their scores mean
    nothing else.

    Args:
        head: the model's.
        text: sides of the texts.
        audio: sides of the audios.
        candidates: how many items of each query are scored exactly; 0, or at least as many as there are: all.
        by_text: whether the texts are the queries; otherwise the audios are.
        shared: what ``head.shared()`` gave; None: it is asked here.
    """
    if candidates < 0:
        raise InputError("candidates must be 0 (all clips) or more", value=candidates)
    queries, items = (text, audio) if by_text else (audio, text)
    has_vectors = head.embedding(text) is not None  # then scoring every pair costs no more than the first stage
    with torch.no_grad():
        rough, shared = None, head.shared() if shared is None else shared
        if 0 < candidates < len(items[0]) and not has_vectors:
            rough = rough_scores(head, text, audio, shared)
        if rough is None:
            return score_all(head, text, audio, shared)
        # As float32, so that equal sounds tie; of those that tie, the earlier ones are the candidates.
        rough = (rough if by_text else rough.t()).float()
        scores = (rough - BELOW).to(text[0].dtype).cpu()
        nearest = rough.argsort(dim=1, descending=True, stable=True)[:, :candidates]
        for number, chosen in enumerate(nearest):
            query, some = rows_of(queries, slice(number, number + 1)), rows_of(items, chosen)
            pair = (query, some) if by_text else (some, query)
            exact = score_all(head, *pair, shared).flatten()
            scores[number, chosen.cpu()] = exact.to(scores)
    return scores if by_text else scores.t()
