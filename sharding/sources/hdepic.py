"""HD-EPIC (Perrett et al., CVPR 2025): sounds of long videos of kitchens, with their times; all is for evaluation.

``HD_EPIC_Sounds.csv`` has the columns of EPIC-SOUNDS without descriptions.  A clip is the sound of a whole video,
``P01-20240202-110250.wav`` or the video itself.
"""

from __future__ import annotations

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset
from sharding.sources.epicsounds import add_videos, timed_captions
from sharding.sources.tree import Tree

NAME = "hdepic"
TABLES = ("HD_EPIC_Sounds.csv", "HD-EPIC-Sounds.csv")  # its authors spell it both ways
LICENCE = "CC BY-NC 4.0 (HD-EPIC)"


def read(root: Storage) -> DatasetTables:
    """Every video of the table, with its sounds and their times."""
    tree = Tree(root)
    path = next((found for name in TABLES if (found := tree.one(name)) is not None), None)
    if path is None:
        remedy = f"put {TABLES[0]} of github.com/hd-epic/hd-epic-annotations into it"
        raise InputError(f"the folder holds no {TABLES[0]}", file=root.url, remedy=remedy)
    rows = CatalogueBuilder(NAME, tree.outside)
    add_videos(tree.index(), rows, "test", timed_captions(tree, path), "hd-epic", LICENCE)
    notes = tuple(tree.advice) if len(rows.used_paths()) < len(rows) else ()
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), notes)


DATASET = PublishedDataset(NAME, read, {}, splits=("test",), protected=("test",))
