"""Readers of published datasets, one a module: ``read(root) -> DatasetTables``.

A new dataset is one module that defines ``DATASET``, and one entry of ``DATASETS``.
"""

from __future__ import annotations

from sharding.sources import audiocaps, clotho, tacos, wavcaps
from sharding.sources.base import PublishedDataset

DATASETS: dict[str, PublishedDataset] = {
    module.DATASET.name: module.DATASET for module in (clotho, audiocaps, wavcaps, tacos)
}  # in the order of the catalogue
