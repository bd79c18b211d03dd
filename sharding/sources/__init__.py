"""Readers of published datasets, one a file: ``read(root) -> SourceTables``.

A new dataset is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharding.sources import audiocaps, clotho, tacos, wavcaps
from sharding.sources.base import SourceTables
from sharding.storage import Storage


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        read: catalogues the dataset below a folder.
        published: part to (clips, captions) as the released tables count them; ``*``: all parts together.
    """

    read: Callable[[Storage], SourceTables]
    published: Mapping[str, tuple[int, int]]


SOURCES: dict[str, Source] = {
    "clotho": Source(clotho.read, clotho.PUBLISHED),
    "audiocaps": Source(audiocaps.read, audiocaps.PUBLISHED),
    "wavcaps": Source(wavcaps.read, wavcaps.PUBLISHED),
    "tacos": Source(tacos.read, tacos.PUBLISHED),
}
