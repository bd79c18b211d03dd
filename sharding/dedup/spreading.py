"""Comparing spread over a runner in pieces of about equal work, and shown while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from sharding.common.progress import Progress
from sharding.dedup.candidates import Spread
from sharding.dedup.findings import Findings

PIECE_S = 3.0  # of processor time that a piece takes, roughly: progress moves, and nobody waits long for the last one
Begin = Callable[[str, int | None, str], Progress]  # what, total, unit
QUIETLY: Begin = partial(Progress, quiet=True)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Spreader:
    """Spreads the steps of comparing over a runner.

    Args:
        spread: ``spread(function, items)`` gives results in any order.
        begin: ``begin(what, total, unit)`` begins to show progress.
        findings: what an earlier run found, and where more is kept.
    """

    def __init__(self, spread: Spread, begin: Begin, findings: Findings | None = None) -> None:
        self._spread, self.begin, self._findings = spread, begin, findings or Findings()

    def tables(self, what: str, tables: Iterable[pa.Table], clips: int) -> Iterator[pa.Table]:
        """Yield the tables; a table counts as done when the next one is asked for."""
        progress = self.begin(what, clips, "clips")
        for table in tables:
            yield table
            progress.add(table.num_rows)
        progress.finish()

    def parts(
        self, names: Iterator[str], most: int, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Results of ``function`` over at most ``most`` items; empty partitions are none."""
        progress = self.begin(next(names), most, "parts")
        for result in self._spread(function, items):
            yield result
            progress.add(1)
        progress.total = progress.done
        progress.finish()

    def each(
        self,
        progress: Progress,
        function: Callable[[list[Item]], list[Result]],
        work: Iterable[Item],
        seconds: Callable[[Item], float],
        units: Callable[[Item], int] = lambda item: 1,
    ) -> Iterator[tuple[Item, Result]]:
        """(item, its result) of all items, in any order; results of an earlier run are not computed again.

        Args:
            progress: counts what is done; its name is that of the step.
            function: gives the result of each of some items, which JSON can hold.
            work: the items; JSON can hold them, and tells them apart.
            seconds: about how much processor time an item takes.
            units: how much progress an item is.
        """
        told: list[tuple[Item, Result]] = []
        todo = []
        for item in work:
            if (found := self._findings.known(progress.what, item)) is None:
                todo.append(item)
            else:
                told.append((item, found))
        progress.resume(sum(units(item) for item, _ in told))
        yield from told
        for piece in self._spread(partial(_all_of, function=function), pieces(todo, seconds)):
            self._findings.keep(progress.what, piece, sum(seconds(item) for item, _ in piece))
            yield from piece
            progress.add(sum(units(item) for item, _ in piece))


def _all_of(items: list[Item], function: Callable[[list[Item]], list[Result]]) -> list[tuple[Item, Result]]:
    return list(zip(items, function(items), strict=True))


def pieces(work: Iterable[Item], seconds: Callable[[Item], float]) -> Iterator[list[Item]]:
    """The items in order, as many together as take ``PIECE_S``, and at least one."""
    piece: list[Item] = []
    held = 0.0
    for item in work:
        cost = seconds(item)
        if piece and held + cost > PIECE_S:
            yield piece
            piece, held = [], 0.0
        piece.append(item)
        held += cost
    if piece:
        yield piece
