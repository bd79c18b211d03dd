"""How a block of the matrix of all pairs is cut into tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from training.models.heads.base import Scorer, Side

# Elements that one tile may hold at once: on a CPU about what its caches hold, on a GPU enough to fill it.
TILE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
LONGEST = 16  # columns of a tile for each of its rows, and the other way round


@dataclass(frozen=True)
class Tiling:
    """How a block of ``rows x columns`` pairs is cut."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int

    @property
    def is_one(self) -> bool:
        """Whether there is one tile."""
        return 0 < self.rows <= self.tile_rows and 0 < self.columns <= self.tile_columns

    def row_slices(self) -> list[slice]:
        return [slice(i, min(i + self.tile_rows, self.rows)) for i in range(0, self.rows, self.tile_rows)]

    def column_slices(self) -> list[slice]:
        return [slice(i, min(i + self.tile_columns, self.columns)) for i in range(0, self.columns, self.tile_columns)]

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        return ((rows, columns) for rows in self.row_slices() for columns in self.column_slices())


def tile_elements(side: Side, shared: Side) -> int:
    """Elements that a tile may hold: never fewer than the scorer's own tensors, which every tile reads anew."""
    weights = sum(tensor.numel() for tensor in shared)
    return max(weights, TILE_ELEMENTS.get(side[0].device.type, TILE_ELEMENTS["cpu"]))


def cut(scorer: Scorer, rows: Side, columns: Side, shared: Side) -> Tiling:
    """Tiles of as many pairs as fit into the budget, in the shape that reads rows and columns least often.

    The wider a row is beside a column, the fewer rows and the more columns a tile has, up to `LONGEST` times as many:
    finished scores are one wide row beside columns of nothing, and would be cut into single rows.
    """
    pairs = max(1, tile_elements(rows, shared) // scorer.pair_elements(rows, columns))
    row_count, column_count = len(rows[0]), len(columns[0])
    row_width, column_width = (sum(tensor[:1].numel() for tensor in side) for side in (rows, columns))
    narrow, wide_rows = max(column_width, row_width // LONGEST, 1), max(row_width, column_width // LONGEST, 1)
    tile_rows = max(1, min(row_count, math.isqrt(pairs * narrow // wide_rows)))
    tile_columns = max(1, min(column_count, pairs // tile_rows))
    return Tiling(row_count, column_count, max(1, min(row_count, pairs // tile_columns)), tile_columns)
