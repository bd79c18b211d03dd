"""Readers of published datasets, one a module: ``read(root) -> DatasetTables``.

A new dataset is one module that defines ``DATASET``, and one entry of ``DATASETS``.
"""

from __future__ import annotations

from sharding.sources import (
    audiocaps,
    audioset,
    autoacd,
    clotho,
    epicsounds,
    esc50,
    fsd50k,
    hdepic,
    tacos,
    tut,
    urbansound8k,
    vggsound,
    vggsounder,
    wavcaps,
)
from sharding.sources.base import PublishedDataset

_CAPTIONED = (clotho, audiocaps, wavcaps, tacos, autoacd)
_LABELLED = (esc50, urbansound8k, fsd50k, tut, audioset, vggsound, vggsounder, epicsounds, hdepic)
DATASETS: dict[str, PublishedDataset] = {
    module.DATASET.name: module.DATASET for module in (*_CAPTIONED, *_LABELLED)
}  # in the order of the catalogue
