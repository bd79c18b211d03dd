"""Any loss over all pairs of a global batch, in tiles, with exact gradients.

The scores of every text against every audio are a matrix with one block of rows, or of columns, per rank:
the side that takes fewer bytes is gathered, the other one stays.  Each rank goes over its block tile by
tile, twice: once for the statistics of texts and audios (the gathered side's are combined over ranks), and
once, in the backward pass, for the gradients, computing each tile's scores again.  So every pair belongs to
exactly one rank, and memory is that of the gathered side and one tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.engine.distributed import Group, accumulation_dtype, with_gradient
from training.models.heads.base import Head, ListedHead, Scorer, Side, rows_of
from training.objectives.pairs.base import PairLoss, Statistics, Tile
from training.objectives.pairs.candidates import Scored, choose, limited, listed_scores
from training.objectives.pairs.relations import Related, SortedIds, related

# Elements that one tile may hold at once: on a CPU about what its caches hold, on a GPU enough to fill it.
TILE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}


def global_loss(
    head: Head,
    loss: PairLoss,
    text: Side,
    audio: Side,
    ids: Tensor,
    group: Group,
) -> Tensor:
    """The loss of the global batch, with its gradient.

    The value is the same on every rank.  The gradient is scaled for trainers that average gradients over
    ranks, as DistributedDataParallel and DeepSpeed do: the averaged gradients of all parameters,
    temperature included, equal those of one process that holds the whole batch.

    For a cached step, pass sides that are leaves (``side.detach().requires_grad_()``): after
    ``loss.backward()`` their ``.grad`` are the cotangents with which to run the encoders again, in chunks.

    Args:
        head: scores texts against audios.
        loss: what to make of the scores.
        text: this rank's texts, tensors ``[b, ...]`` (b may be 0, and differ between ranks).
        audio: this rank's audios, tensors ``[b, ...]``; audio i and text i are one sample.
        ids: ``[b, 4]`` int64, see `training.objectives.pairs.relations.stack_ids`.
        group: the ranks that share the global batch.
    """
    layouts = group.describe((*text, *audio), "sides")
    text_layouts, audio_layouts = layouts.split(len(text))
    text, audio = with_gradient(text, text_layouts), with_gradient(audio, audio_layouts)
    all_ids = group.gather_rows(ids, "ids")
    text_ids = audio_ids = ids
    # Every rank compares the same totals, so every rank gathers the same side.
    gathers_audio = audio_layouts.total_bytes() <= text_layouts.total_bytes()
    if gathers_audio:
        audio, audio_ids = group.gather_many(audio, "audio side", audio_layouts), all_ids
    else:
        text, text_ids = group.gather_many(text, "text side", text_layouts), all_ids
    text, audio = _wide(text), _wide(audio)
    shared = _wide(head.shared())
    numbers = tuple(number.to(text[0]) for number in loss())
    scorer: Scorer = head
    chosen = None
    if isinstance(head, ListedHead) and head.candidates:
        relation = related(text_ids, SortedIds(audio_ids), loss.positives)
        chosen = choose(head, text, audio, shared, relation, gathers_audio, group)
        scores = listed_scores(head, text, audio, shared, chosen, tile_elements(text, shared))
        scorer, text, shared = Scored(), (scores,), ()
        audio = (torch.arange(scores.shape[1], device=scores.device),)
    inputs = (text, audio, shared, numbers)
    block = _Block(
        scorer,
        loss,
        group,
        gathers_audio,
        text_ids,
        audio_ids,
        len(all_ids),
        tuple(len(part) for part in inputs),
        _tiling(scorer, text, audio, shared),
        chosen,
    )
    value: Tensor = _TiledLoss.apply(block, *(tensor for part in inputs for tensor in part))
    return value


def score_all(head: Head, text: Side, audio: Side) -> Tensor:
    """Every text's similarity to every audio, ``[texts, audios]`` on the CPU, in tiles, without gradient."""
    with torch.no_grad():
        text, audio, shared = _wide(text), _wide(audio), _wide(head.shared())
        scores = torch.empty(len(text[0]), len(audio[0]), dtype=text[0].dtype)
        for texts, audios in _tiling(head, text, audio, shared).tiles():
            scores[texts, audios] = head.pair_scores(rows_of(text, texts), rows_of(audio, audios), shared).cpu()
    return scores


@dataclass(frozen=True)
class _Tiling:
    """How a block of ``texts x audios`` pairs is cut."""

    texts: int
    audios: int
    tile_texts: int
    tile_audios: int

    def text_slices(self) -> list[slice]:
        return [slice(i, min(i + self.tile_texts, self.texts)) for i in range(0, self.texts, self.tile_texts)]

    def audio_slices(self) -> list[slice]:
        return [slice(i, min(i + self.tile_audios, self.audios)) for i in range(0, self.audios, self.tile_audios)]

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        return ((texts, audios) for texts in self.text_slices() for audios in self.audio_slices())


def tile_elements(side: Side, shared: Side) -> int:
    """Elements that a tile may hold: never fewer than the head's own tensors, which every tile reads anew."""
    weights = sum(tensor.numel() for tensor in shared)
    return max(weights, TILE_ELEMENTS.get(side[0].device.type, TILE_ELEMENTS["cpu"]))


def _tiling(head: Scorer, text: Side, audio: Side, shared: Side) -> _Tiling:
    """Tiles as square as the block allows, of as many pairs as fit into the budget."""
    pairs = max(1, tile_elements(text, shared) // head.pair_elements(text, audio))
    texts, audios = len(text[0]), len(audio[0])
    tile_texts = max(1, min(texts, math.isqrt(pairs)))
    tile_audios = max(1, min(audios, pairs // tile_texts))
    return _Tiling(texts, audios, max(1, min(texts, pairs // tile_audios)), tile_audios)


def _wide(side: Side) -> Side:
    """Half-precision tensors as float32: scores, exponentials and gradients are taken in float32."""
    return tuple(t.to(accumulation_dtype(t.dtype)) if t.is_floating_point() else t for t in side)


# What a text or an audio has before any tile was seen.
_NOTHING = {"sum": 0.0, "logsumexp": -math.inf}


@dataclass
class _Block:
    """A rank's block of the matrix of all pairs."""

    head: Scorer
    loss: PairLoss
    group: Group
    gathers_audio: bool
    text_ids: Tensor
    audio_ids: Tensor
    samples: int
    sizes: tuple[int, ...]
    tiling: _Tiling
    chosen: Tensor | None  # pairs ``[texts, audios]`` that take part; None: all

    def __post_init__(self) -> None:
        self.sorted_audios = [SortedIds(self.audio_ids[audios]) for audios in self.tiling.audio_slices()]

    def parts(self, tensors: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Text side, audio side, the head's shared tensors, the loss's numbers."""
        items = iter(tensors)
        return [tuple(next(items) for _ in range(size)) for size in self.sizes]

    def related_tiles(self) -> Iterator[tuple[slice, slice, Related]]:
        for texts in self.tiling.text_slices():
            ids = self.text_ids[texts]
            for audios, sorted_ids in zip(self.tiling.audio_slices(), self.sorted_audios, strict=True):
                found = related(ids, sorted_ids, self.loss.positives)
                yield texts, audios, found if self.chosen is None else limited(found, self.chosen[texts, audios])

    def observe(self, tensors: Sequence[Tensor]) -> tuple[Statistics, Statistics]:
        """The combined statistics of this block's texts and audios."""
        text, audio, shared, numbers = self.parts(tensors)
        kinds = (self.loss.of_texts, self.loss.of_audios)
        counts = (self.tiling.texts, self.tiling.audios)
        found = tuple(
            {name: text[0].new_full((count,), _NOTHING[how]) for name, how in kind.items()}
            for kind, count in zip(kinds, counts, strict=True)
        )
        for texts, audios, relation in self.related_tiles():
            scores = self.head.pair_scores(rows_of(text, texts), rows_of(audio, audios), shared)
            seen = self.loss.observe(Tile(self.loss.logits(scores, *numbers).contiguous(), relation))
            for kind, totals, new, rows in zip(kinds, found, seen, (texts, audios), strict=True):
                for name, how in kind.items():
                    old = totals[name][rows]
                    totals[name][rows] = old + new[name] if how == "sum" else torch.logaddexp(old, new[name])
        gathered = 1 if self.gathers_audio else 0
        for name, how in kinds[gathered].items():
            combine = self.group.sum if how == "sum" else self.group.logsumexp
            found[gathered][name] = combine(found[gathered][name], f"{name} of the gathered side")
        return found[0], found[1]

    def total(self, of_texts: Statistics, of_audios: Statistics) -> Tensor:
        """The loss of the global batch, ``[]``; terms of the side that stays are on several ranks."""
        terms = self.loss.value(of_texts, of_audios)
        local = 0 if self.gathers_audio else 1
        here = self.group.sum(terms[local].sum().view(1), "loss")
        return (here[0] + terms[1 - local].sum()) / max(self.samples, 1)


class _TiledLoss(torch.autograd.Function):
    """The loss of a block; its backward pass computes each tile's scores again."""

    @staticmethod
    def forward(ctx: Any, block: _Block, *tensors: Tensor) -> Tensor:
        ctx.block, ctx.statistics = block, block.observe(tensors)
        ctx.save_for_backward(*tensors)
        return block.total(*ctx.statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        block: _Block = ctx.block
        wanted = ctx.needs_input_grad[1:]
        tensors = ctx.saved_tensors
        gradients = [torch.zeros_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)]
        text, audio, _, _ = block.parts(gradients)
        _, _, shared, numbers = block.parts(range(len(tensors)))
        for texts, audios, relation in block.related_tiles():
            pieces = _tile_gradients(block, tensors, wanted, texts, audios, relation, ctx.statistics)
            text_pieces, audio_pieces, _, _ = block.parts(pieces)
            for totals, new, rows in ((text, text_pieces, texts), (audio, audio_pieces, audios)):
                for total, piece in zip(totals, new, strict=True):
                    if total is not None and piece is not None:
                        total[rows] += piece
            for index in (*shared, *numbers):
                total = gradients[index]
                if total is not None and pieces[index] is not None:
                    total += pieces[index]
        scale = cotangent * block.group.size
        return (None, *(None if g is None else g.mul_(scale) for g in gradients))


def _tile_gradients(
    block: _Block,
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    texts: slice,
    audios: slice,
    relation: Related,
    statistics: tuple[Statistics, Statistics],
) -> list[Tensor | None]:
    """The gradient of every input that wants one, from one tile: rows of the sides, whole shared tensors."""
    text, audio, shared, numbers = block.parts(tensors)
    leaves = [
        tensor.detach().requires_grad_(wants)
        for tensor, wants in zip(
            (*rows_of(text, texts), *rows_of(audio, audios), *shared, *numbers), wanted, strict=True
        )
    ]
    own_text, own_audio, own_shared, own_numbers = block.parts(leaves)
    with torch.enable_grad():
        scores = block.head.pair_scores(own_text, own_audio, own_shared)
        logits = block.loss.logits(scores, *own_numbers).contiguous()
    of_texts = {name: tensor[texts] for name, tensor in statistics[0].items()}
    of_audios = {name: tensor[audios] for name, tensor in statistics[1].items()}
    weight = block.loss.gradient(Tile(logits.detach(), relation), of_texts, of_audios, block.samples)
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    answers = iter(torch.autograd.grad(logits, asked, weight, allow_unused=True))
    return [next(answers) if leaf.requires_grad else None for leaf in leaves]
