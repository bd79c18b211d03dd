"""Any loss over all pairs of a global batch, in tiles, with exact gradients.

The scores of every row against every column are a matrix with one block of rows, or of columns, per rank: the side
that takes fewer bytes is gathered from all ranks, the other side stays where it is.  Each rank goes over its block
tile by tile, twice: once for the statistics of rows and columns (those of the gathered side are combined over ranks),
and once, in the backward pass, for the gradients, computing the scores of each tile again; scores of a block that is
one tile are kept.  So every pair belongs to exactly one rank, and memory is that of the gathered side and one tile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharding.common.errors import InputError
from training.engine.distributed import Group, accumulation_dtype, with_gradient
from training.models.heads.base import Head, ListedHead, Scorer, Side, rows_of
from training.objectives.pairs import statistics, tiling
from training.objectives.pairs.base import PairLoss, SideName, Statistics, Tile
from training.objectives.pairs.candidates import Scored, choose, limited, listed_scores
from training.objectives.pairs.relations import TAGS, Related, SortedIds, related
from training.objectives.pairs.tiling import Tiling, cut

SIDES: tuple[SideName, SideName] = ("rows", "columns")


@dataclass(frozen=True)
class Items:
    """Rows or columns of the matrix of pairs that are on this rank.

    Attributes:
        side: what the scorer needs of each, tensors ``[n, ...]`` (n may be 0, and differ between ranks).
        ids: ``[n, 4 + w]`` int64, ids and w words of tags, see `training.objectives.pairs.relations.stack_ids`.
    """

    side: Side
    ids: Tensor


@dataclass(frozen=True)
class Teacher:
    """Scores that another model gives to the same pairs, without gradient.

    Attributes:
        scorer: the teacher's.
        rows, columns: the teacher's sides of this rank's rows and columns, in their order.
    """

    scorer: Scorer
    rows: Side
    columns: Side

    @functools.cached_property
    def shared(self) -> Side:
        """What the scorer needs besides the sides, without gradient."""
        with torch.no_grad():
            return wide(self.scorer.shared())


def global_loss(
    scorer: Scorer, loss: PairLoss, rows: Items, columns: Items, group: Group, teachers: Sequence[Teacher] = ()
) -> Tensor:
    """The loss of the global batch, with its gradient.

    The value is the same on every rank.  The gradient is scaled for trainers that average gradients over
    ranks, as DistributedDataParallel and DeepSpeed do: the averaged gradients of all parameters,
    temperature included, equal those of one process that holds the whole batch.

    For a cached step, pass sides that are leaves (``side.detach().requires_grad_()``): after
    ``loss.backward()`` their ``.grad`` are the cotangents with which to run the encoders again, in chunks.

    Args:
        scorer: scores rows against columns, for example a head that scores captions against clips.
        loss: what to make of the scores.
        rows: this rank's rows.
        columns: this rank's columns; there may be more or fewer than rows.
        group: the ranks that share the global batch.
        teachers: their scores are averaged, and the loss sees the average beside each tile's logits.
    """
    if loss.needs_teacher and not teachers:
        raise InputError("the loss needs a teacher's scores", remedy="name the teachers in the recipe")
    layouts = group.describe((*rows.side, *columns.side), "sides")
    row_layouts, column_layouts = layouts.split(len(rows.side))
    row_side, column_side = with_gradient(rows.side, row_layouts), with_gradient(columns.side, column_layouts)
    row_ids, column_ids = rows.ids, columns.ids
    # Every rank compares the same totals, so every rank gathers the same side.
    gathers_columns = column_layouts.total_bytes() <= row_layouts.total_bytes()
    if gathers_columns:
        column_side = group.gather_many(column_side, "columns", column_layouts)
        column_ids = group.gather_rows(column_ids, "ids of columns")
    else:
        row_side = group.gather_many(row_side, "rows", row_layouts)
        row_ids = group.gather_rows(row_ids, "ids of rows")
    row_side, column_side = wide(row_side), wide(column_side)
    shared = wide(scorer.shared())
    numbers = tuple(number.to(row_side[0]) for number in loss())
    chosen = None
    if isinstance(scorer, ListedHead) and scorer.candidates:
        relation = related(row_ids, SortedIds(column_ids), loss.positives, loss.leaves_out)
        chosen = choose(scorer, row_side, column_side, shared, relation, gathers_columns, group)
        scores = listed_scores(scorer, row_side, column_side, shared, chosen, tiling.tile_elements(row_side, shared))
        scorer, row_side, shared = Scored(), (scores,), ()
        column_side = (torch.arange(scores.shape[1], device=scores.device),)
    inputs = (row_side, column_side, shared, numbers)
    block = _Block(
        scorer=scorer,
        loss=loss,
        group=group,
        gathers_columns=gathers_columns,
        row_ids=row_ids,
        column_ids=column_ids,
        sizes=tuple(len(part) for part in inputs),
        tiling=cut(scorer, row_side, column_side, shared),
        chosen=chosen,
        with_gradient=torch.is_grad_enabled(),
        teachers=[_gathered_teacher(teacher, gathers_columns, group) for teacher in teachers],
    )
    value: Tensor = _TiledLoss.apply(block, *(tensor for part in inputs for tensor in part))
    return value


def score_all(head: Head, text: Side, audio: Side, shared: Side | None = None) -> Tensor:
    """The score of every text for every audio, ``[texts, audios]`` on the CPU, in tiles, without gradient.

    Args:
        head: the model's.
        text, audio: the sides.
        shared: the result of ``head.shared()``; None: it is called here.  Under ZeRO-3 every rank must call it equally
            often.
    """
    with torch.no_grad():
        text, audio, shared = wide(text), wide(audio), wide(head.shared() if shared is None else shared)
        scores = torch.empty(len(text[0]), len(audio[0]), dtype=text[0].dtype)
        for texts, audios in cut(head, text, audio, shared).tiles():
            scores[texts, audios] = head.pair_scores(rows_of(text, texts), rows_of(audio, audios), shared).cpu()
    return scores


def wide(side: Side) -> Side:
    """Half-precision tensors as float32: scores, exponentials and gradients are taken in float32."""
    return tuple(t.to(accumulation_dtype(t.dtype)) if t.is_floating_point() else t for t in side)


def _gathered_teacher(teacher: Teacher, gathers_columns: bool, group: Group) -> Teacher:
    """The teacher with the same side gathered as the student's, detached."""
    rows, columns = (tuple(tensor.detach() for tensor in side) for side in (teacher.rows, teacher.columns))
    if gathers_columns:
        columns = group.gather_many(columns, "the teacher's columns")
    else:
        rows = group.gather_many(rows, "the teacher's rows")
    return Teacher(teacher.scorer, wide(rows), wide(columns))


@dataclass
class _Block:
    """A rank's block of the matrix of all pairs."""

    scorer: Scorer
    loss: PairLoss
    group: Group
    gathers_columns: bool
    row_ids: Tensor
    column_ids: Tensor
    sizes: tuple[int, ...]
    tiling: Tiling
    chosen: Tensor | None  # pairs ``[rows, columns]`` that take part; None: all
    with_gradient: bool  # a backward pass will follow
    teachers: list[Teacher]
    kept: tuple[list[Tensor], Tensor] | None = None  # `traced` of the block's only tile
    sorted_columns: list[SortedIds] = field(init=False)

    def __post_init__(self) -> None:
        self.sorted_columns = [SortedIds(self.column_ids[columns]) for columns in self.tiling.column_slices()]

    def parts(self, tensors: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows, columns, the scorer's shared tensors, the loss's numbers."""
        items = iter(tensors)
        return [tuple(next(items) for _ in range(size)) for size in self.sizes]

    def related_tiles(self) -> Iterator[tuple[slice, slice, Related]]:
        loss = self.loss
        for rows in self.tiling.row_slices():
            ids = self.row_ids[rows]
            for columns, sorted_ids in zip(self.tiling.column_slices(), self.sorted_columns, strict=True):
                found = related(ids, sorted_ids, loss.positives, loss.leaves_out)
                yield rows, columns, found if self.chosen is None else limited(found, self.chosen[rows, columns])

    def taught(self, rows: slice, columns: slice) -> Tensor | None:
        """The mean of the teachers' scores of a tile."""
        if not self.teachers:
            return None
        with torch.no_grad():
            scores = [
                teacher.scorer.pair_scores(
                    rows_of(teacher.rows, rows), rows_of(teacher.columns, columns), teacher.shared
                )
                for teacher in self.teachers
            ]
            return torch.stack(scores).mean(0) if len(scores) > 1 else scores[0]

    def tile(self, logits: Tensor, relation: Related, rows: slice, columns: slice) -> Tile:
        """What the loss sees of some rows and some columns."""
        tags = self.row_ids[rows, TAGS:], self.column_ids[columns, TAGS:]
        return Tile(logits, relation, *tags, self.taught(rows, columns))

    def inputs(self, tensors: Sequence[Tensor], rows: slice, columns: slice) -> list[Tensor]:
        """The inputs of a tile: some rows of each side, and all shared tensors and numbers."""
        row_side, column_side, shared, numbers = self.parts(tensors)
        return [*rows_of(row_side, rows), *rows_of(column_side, columns), *shared, *numbers]

    def logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """The logits of a tile."""
        row_side, column_side, shared, numbers = self.parts(inputs)
        return self.loss.logits(self.scorer.pair_scores(row_side, column_side, shared), *numbers).contiguous()

    def traced(self, inputs: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[list[Tensor], Tensor]:
        """A tile's inputs as leaves, and its logits in their graph."""
        leaves = [tensor.detach().requires_grad_(wants) for tensor, wants in zip(inputs, wanted, strict=True)]
        with torch.enable_grad():
            return leaves, self.logits(leaves)

    def observe(self, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Statistics, Statistics]:
        """The combined statistics of this block's rows and columns."""
        of_rows = statistics.empty(self.loss.of_rows, self.tiling.rows, tensors[0])
        of_columns = statistics.empty(self.loss.of_columns, self.tiling.columns, tensors[0])
        for rows, columns, relation in self.related_tiles():
            inputs = self.inputs(tensors, rows, columns)
            if self.tiling.is_one and self.with_gradient:
                self.kept = self.traced(inputs, wanted)
                logits = self.kept[1].detach().clone()  # losses may overwrite them
            else:
                logits = self.logits(inputs)
            seen = self.loss.observe(self.tile(logits, relation, rows, columns))
            statistics.combine(self.loss.of_rows, of_rows, seen[0], rows)
            statistics.combine(self.loss.of_columns, of_columns, seen[1], columns)
        if self.gathers_columns:
            return of_rows, statistics.over_ranks(self.loss.of_columns, of_columns, self.group)
        return statistics.over_ranks(self.loss.of_rows, of_rows, self.group), of_columns

    def total(self, of_rows: Statistics, of_columns: Statistics) -> tuple[Tensor, float, float]:
        """The loss of the global batch ``[]``, and the sums of the weights of its rows and of its columns."""
        sums = []
        for side, found in zip(SIDES, (of_rows, of_columns), strict=True):
            terms, weights = self.loss.terms(found, side)
            here = torch.stack((terms.sum(), weights.to(terms.dtype).sum()))
            gathered = self.gathers_columns == (side == "columns")  # a gathered side is whole on every rank
            sums.append(here if gathered else self.group.sum(here, "loss"))
        (rows, row_weight), (columns, column_weight) = sums
        row_weight, column_weight = row_weight.clamp(min=1), column_weight.clamp(min=1)
        return rows / row_weight + columns / column_weight, float(row_weight), float(column_weight)


class _TiledLoss(torch.autograd.Function):
    """The loss of a block; its backward pass computes the scores of each of several tiles again."""

    @staticmethod
    def forward(ctx: Any, block: _Block, *tensors: Tensor) -> Tensor:
        ctx.block, ctx.statistics = block, block.observe(tensors, ctx.needs_input_grad[1:])
        ctx.save_for_backward(*tensors)
        value, *ctx.weights = block.total(*ctx.statistics)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        block: _Block = ctx.block
        wanted = ctx.needs_input_grad[1:]
        tensors = ctx.saved_tensors
        scale = cotangent if block.loss.gradient_per_rank else cotangent * block.group.size
        backward = _Backward(block, ctx.statistics, ctx.weights, scale)
        if block.tiling.is_one:
            (tile,) = block.related_tiles()
            pieces = backward.of_tile(tensors, wanted, *tile)
            for index, (tensor, wants) in enumerate(zip(tensors, wanted, strict=True)):
                piece = pieces[index]
                if wants:
                    pieces[index] = torch.zeros_like(tensor) if piece is None else piece.contiguous()
            return (None, *pieces)
        gradients = [torch.zeros_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)]
        row_side, column_side, _, _ = block.parts(gradients)
        _, _, shared, numbers = block.parts(range(len(tensors)))
        for rows, columns, relation in block.related_tiles():
            pieces = backward.of_tile(tensors, wanted, rows, columns, relation)
            row_pieces, column_pieces, _, _ = block.parts(pieces)
            for totals, new, some in ((row_side, row_pieces, rows), (column_side, column_pieces, columns)):
                for total, piece in zip(totals, new, strict=True):
                    if total is not None and piece is not None:
                        total[some] += piece
            for index in (*shared, *numbers):
                total = gradients[index]
                if total is not None and pieces[index] is not None:
                    total += pieces[index]
        return (None, *gradients)


class _Backward:
    """The gradient of each tile, given the combined statistics of all rows and columns."""

    def __init__(
        self, block: _Block, whole: tuple[Statistics, Statistics], weights: Sequence[float], scale: Tensor
    ) -> None:
        self.block, self.whole, self.weights, self.scale = block, whole, weights, scale
        if not block.loss.by_hand:
            self.by_whole = [
                _by_statistics(block.loss, found, side, weight)
                for found, side, weight in zip(whole, SIDES, weights, strict=True)
            ]

    def of_tile(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], rows: slice, columns: slice, relation: Related
    ) -> list[Tensor | None]:
        """The gradient of one tile for every input that requires one: rows of a side, or whole shared tensors."""
        block = self.block
        leaves, logits = block.kept or block.traced(block.inputs(tensors, rows, columns), wanted)
        block.kept = None  # one backward pass frees its graph
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        with torch.enable_grad():
            if block.loss.by_hand:
                of_rows, of_columns = _some(self.whole[0], rows), _some(self.whole[1], columns)
                tile = block.tile(logits.detach(), relation, rows, columns)
                outputs = [logits]
                weights = [block.loss.gradient(tile, of_rows, of_columns, *self.weights).mul_(self.scale)]
            else:
                outputs, weights = self._chained(block.tile(logits, relation, rows, columns), rows, columns)
        answers = iter(
            torch.autograd.grad(outputs, asked, weights, allow_unused=True) if outputs else [None] * len(asked)
        )
        return [next(answers) if leaf.requires_grad else None for leaf in leaves]

    def _chained(self, tile: Tile, rows: slice, columns: slice) -> tuple[list[Tensor], list[Tensor]]:
        """The tile's statistics that depend on the scores, and the derivative of the loss by each."""
        outputs: list[Tensor] = []
        weights: list[Tensor] = []
        kinds = (self.block.loss.of_rows, self.block.loss.of_columns)
        seen = self.block.loss.observe(tile)
        for number, some in enumerate((rows, columns)):
            whole, by_whole = _some(self.whole[number], some), _some(self.by_whole[number], some)
            found = statistics.cotangents(kinds[number], seen[number], whole, by_whole)
            for name, cotangent in zip(kinds[number], found, strict=True):
                if seen[number][name].requires_grad:
                    outputs.append(seen[number][name])
                    weights.append(cotangent * self.scale)
        return outputs, weights


def _by_statistics(loss: PairLoss, whole: Statistics, side: SideName, weight: float) -> Statistics:
    """The derivative of the loss by each combined statistic of one side; zeros where it depends on none."""
    leaves = {name: value.detach().requires_grad_() for name, value in whole.items()}
    with torch.enable_grad():
        terms, _ = loss.terms(leaves, side)
        total = terms.sum() / weight
    if not leaves or not total.requires_grad:
        return {name: torch.zeros_like(value) for name, value in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient.nan_to_num(0.0)
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _some(found: Statistics, rows: slice) -> Statistics:
    return {name: value[rows] for name, value in found.items()}
