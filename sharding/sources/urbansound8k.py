"""UrbanSound8K (Salamon et al., 2014): excerpts of Freesound recordings, at most 4 s long, each of one of ten classes.

The table ``UrbanSound8K.csv`` says which of ten folds an excerpt is in, and from when to when of its recording it
lasts.  Each fold is the test set once, so all are protected.  The labels are captions of kind ``label``.
"""

from __future__ import annotations

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, fold_split, label_caption
from sharding.sources.identities import freesound, id_remark
from sharding.sources.tree import Tree, climbs, stem_of

NAME = "urbansound8k"
SPLITS = tuple(f"fold{number}" for number in range(1, 11))
_CLIPS = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
PUBLISHED = {split: (clips, clips) for split, clips in zip(SPLITS, _CLIPS, strict=True)}
COLUMNS = ("slice_file_name", "fsID", "start", "end", "fold", "class")
LICENCE = "CC BY-NC 3.0 (UrbanSound8K)"


def read(root: Storage) -> DatasetTables:
    """Every excerpt of UrbanSound8K.csv, with its class, its fold and its interval."""
    tree = Tree(root)
    path = tree.one("UrbanSound8K.csv")
    if path is None:
        remedy = "put the folders metadata and audio of the published archive into it"
        raise InputError("the folder holds no UrbanSound8K.csv", file=root.url, remedy=remedy)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for number, cells in csv_rows(tree.text(path), tree.name(path), COLUMNS):
        split = fold_split(cells["fold"], SPLITS, tree.name(path), number)
        filename = cells["slice_file_name"]
        if not filename.strip() or not cells["class"].strip():
            raise InputError(
                "the row has no file name or no class", file=tree.name(path), row=number, remedy=FETCH_AGAIN
            )
        start, end = seconds(cells["start"]), seconds(cells["end"])
        known = start is not None and end is not None and 0 <= start < end
        notes = [] if known else ["start and end are not two times in order"]
        if remark := id_remark(cells["fsID"]):
            notes.append(remark)
        stem = stem_of(filename)
        rows.add(
            split,
            stem,
            path=None if climbs(filename) else index.one(stem),
            out_of_root=climbs(filename),
            captions=[label_caption(cells["class"])],
            identity=freesound(cells["fsID"]),
            interval=(start, end) if known and start is not None else None,
            licence=LICENCE,
            duration_s=round(end - start, 6) if known and start is not None and end is not None else None,
            notes=notes,
        )
    advice = tuple(tree.advice) if len(rows.used_paths()) < len(rows) else ()
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), advice)


DATASET = PublishedDataset(NAME, read, PUBLISHED, splits=SPLITS, protected=SPLITS)
