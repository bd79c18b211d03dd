"""Training on the nearest negatives alone: the cheaper choice for heads whose every pair is dear.

Every caption meets the K clips of the global batch, and every clip the K captions, that look nearest by the head's
first stage, and all its positives.  The pairs that nobody chose are left out of the loss as kin are.  So its loss and
gradient are not those of the whole batch: `bench/scoring.py` measures how far they are off.  They are the same for any
number of ranks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.engine.distributed import Group
from training.models.heads.base import ListedHead, Side, rough_scores, rows_of
from training.objectives.pairs.relations import Related

TIE = 1e-6  # scores of the first stage this near are one: which of two equal clips is met must not be chance


def choose(
    head: ListedHead, text: Side, audio: Side, shared: Side, relation: Related, gathers_audio: bool, group: Group
) -> Tensor:
    """Which pairs of this rank's block are scored: bool ``[texts, audios]``.

    Args:
        head: with its number of candidates.
        text, audio, shared: the sides of the block, one of them of the whole global batch.
        relation: the relation of the block's pairs.
        gathers_audio: whether the audios are those of the global batch, else the texts are.
        group: the ranks.
    """
    with torch.no_grad():
        rough = rough_scores(head, text, audio, shared)
        assert rough is not None, "a head with candidates has a first stage"
        rough.view(-1)[relation.positive] = rough.view(-1)[relation.left_out] = -torch.inf
        own = rough if gathers_audio else rough.t()  # each row meets every partner here
        others = own.t()  # each row meets its partners on all ranks
        best = _best(others, head.candidates)
        everywhere = group.gather_rows(best, "candidates").view(group.size, *best.shape).transpose(0, 1).flatten(1)
        chosen = own >= _least(_best(own, head.candidates))
        chosen |= (others >= _least(_best(everywhere, head.candidates))).t()
        chosen = (chosen if gathers_audio else chosen.t()).contiguous()
        chosen &= rough > -torch.inf
        chosen.view(-1)[relation.positive] = True
    return chosen


def limited(relation: Related, chosen: Tensor) -> Related:
    """The relations of a tile in which every pair that was not chosen is left out."""
    passed = (~chosen).flatten().nonzero()[:, 0]
    return dataclasses.replace(relation, left_out=torch.cat((relation.left_out, passed)).unique())


class Scored:
    """Scores that are known, as a scorer: the side of a row is its row of scores, that of a column its number."""

    def shared(self) -> Side:
        return ()

    def pair_scores(self, rows: Side, columns: Side, shared: Side, /) -> Tensor:
        return rows[0].index_select(1, columns[0])

    def pair_elements(self, rows: Side, columns: Side, /) -> int:
        return 1


def listed_scores(
    head: ListedHead, text: Side, audio: Side, shared: Side, chosen: Tensor, tile_elements: int
) -> Tensor:
    """Scores ``[texts, audios]`` of the chosen pairs, 0 elsewhere; differentiable, a few pairs at a time."""
    at_once = max(1, tile_elements // head.pair_elements(text, audio))
    sizes = (len(text), len(audio), len(shared))
    scores: Tensor = _Listed.apply(head, chosen.nonzero(), chosen.shape, at_once, sizes, *text, *audio, *shared)
    return scores


class _Listed(torch.autograd.Function):
    """Scores of listed pairs; the backward pass computes them again."""

    @staticmethod
    def forward(
        ctx: Any, head: ListedHead, pairs: Tensor, shape: Any, at_once: int, sizes: Any, *tensors: Tensor
    ) -> Tensor:
        ctx.head, ctx.pairs, ctx.at_once, ctx.sizes = head, pairs, at_once, sizes
        ctx.save_for_backward(*tensors)
        scores = tensors[0].new_zeros(shape)
        for part in pairs.split(at_once):
            texts, audios = part.t()
            scores[texts, audios] = head.listed_scores(*_sides(tensors, sizes, texts, audios))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        wanted, tensors = ctx.needs_input_grad[5:], ctx.saved_tensors
        gradients = [torch.zeros_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)]
        for part in ctx.pairs.split(ctx.at_once):
            texts, audios = part.t()
            sides = _sides(tensors, ctx.sizes, texts, audios)
            leaves = [tensor.detach() for side in sides for tensor in side]
            for leaf, want in zip(leaves, wanted, strict=True):
                leaf.requires_grad_(want)
            with torch.enable_grad():
                scores = ctx.head.listed_scores(*_split(leaves, ctx.sizes))
            asked = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(scores, asked, cotangent[texts, audios], allow_unused=True))
            rows = [texts] * ctx.sizes[0] + [audios] * ctx.sizes[1] + [None] * ctx.sizes[2]
            for total, leaf, index in zip(gradients, leaves, rows, strict=True):
                piece = next(found) if leaf.requires_grad else None
                if total is not None and piece is not None:
                    total += piece if index is None else torch.zeros_like(total).index_add_(0, index, piece)
        return (None, None, None, None, None, *gradients)


def _sides(tensors: Any, sizes: Any, texts: Tensor, audios: Tensor) -> tuple[Side, Side, Side]:
    text, audio, shared = _split(tensors, sizes)
    return rows_of(text, texts), rows_of(audio, audios), shared


def _split(tensors: Any, sizes: Any) -> tuple[Side, Side, Side]:
    texts, audios, _ = sizes
    return tuple(tensors[:texts]), tuple(tensors[texts : texts + audios]), tuple(tensors[texts + audios :])


def _best(scores: Tensor, count: int) -> Tensor:
    """The highest of each row, ``[rows, count]``, with minus infinity where there are fewer."""
    best = scores.topk(min(count, scores.shape[1]), 1).values
    return torch.nn.functional.pad(best, (0, count - best.shape[1]), value=-torch.inf)


def _least(best: Tensor) -> Tensor:
    return best[:, -1:] - TIE
