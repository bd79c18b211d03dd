"""Readers of published datasets, one a file: ``read(root) -> SourceTables``.

A new dataset is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharding.common.storage import Storage
from sharding.sources import audiocaps, clotho, tacos, wavcaps
from sharding.sources.base import SourceTables


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        read: catalogues the dataset below a folder.
        published: part to (clips, captions) as the released tables count them; ``*``: all parts together.
        splits: what its clips can be called.
    """

    read: Callable[[Storage], SourceTables]
    published: Mapping[str, tuple[int, int]]
    splits: tuple[str, ...]


SOURCES: dict[str, Source] = {
    "clotho": Source(clotho.read, clotho.PUBLISHED, tuple(clotho.FOLDERS)),
    "audiocaps": Source(audiocaps.read, audiocaps.PUBLISHED, audiocaps.SPLITS),
    "wavcaps": Source(wavcaps.read, wavcaps.PUBLISHED, ("train",)),
    "tacos": Source(tacos.read, tacos.PUBLISHED, tuple(tacos.SPLITS)),
}
