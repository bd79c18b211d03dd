"""Retrieval in two stages: the first k of every query by vectors, and those again as the model scores them.

Heads with attention score pairs; a query against a million clips would be a million pairs. Their `first_stage` gives
vectors of one side alone whose products are near the scores, so that only k pairs a query are scored exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.models.heads.base import Head, Side, rough_scores, rows_of
from training.objectives.pairs.tiled import score_all

BELOW = 4.0  # first stage and scores are in [-1, 1]


def two_stage_scores(head: Head, text: Side, audio: Side, first: int, by_text: bool = True) -> Tensor:
    """Similarities ``[texts, audios]`` on the CPU, exact for the first candidates of every query.

    All others stand below every candidate, in the order of the first stage: their numbers say no more than that.

    Args:
        head: the model's.
        text: sides of the texts.
        audio: sides of the audios.
        first: candidates of each query; 0, or at least as many as there are: every pair is scored.
        by_text: whether texts are the queries, else audios are.
    """
    if first < 0:
        raise InputError("first counts from 0, which means all", value=first)
    queries, items = (text, audio) if by_text else (audio, text)
    embedded = head.embedding(text) is not None  # then scoring every pair costs no more than the first stage
    with torch.no_grad():
        rough = None
        if 0 < first < len(items[0]) and not embedded:
            rough = rough_scores(head, text, audio, head.shared())
        if rough is None:
            return score_all(head, text, audio)
        # as float32, so that equal sounds tie and the earlier one comes first
        rough = (rough if by_text else rough.t()).float()
        scores = (rough - BELOW).to(text[0].dtype).cpu()
        nearest = rough.argsort(dim=1, descending=True, stable=True)[:, :first]
        for number, chosen in enumerate(nearest):
            query, some = rows_of(queries, slice(number, number + 1)), rows_of(items, chosen)
            exact = score_all(head, query, some)[0] if by_text else score_all(head, some, query)[:, 0]
            scores[number, chosen.cpu()] = exact.to(scores)
    return scores if by_text else scores.t()
