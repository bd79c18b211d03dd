"""ESC-50 (Piczak, 2015; github.com/karolpiczak/ESC-50): recordings of 5 s, each of one of 50 classes.

The table ``esc50.csv`` says which of five folds a recording is in.  Each fold is the test set once, so all are
protected.  The labels are captions of kind ``label``.
"""

from __future__ import annotations

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, fold_split, label_caption
from sharding.sources.identities import freesound, id_remark
from sharding.sources.tree import Tree, climbs, stem_of

NAME = "esc50"
SPLITS = tuple(f"fold{number}" for number in range(1, 6))
PUBLISHED = dict.fromkeys(SPLITS, (400, 400))
COLUMNS = ("filename", "fold", "category", "src_file")
LICENCE = "CC BY-NC 3.0 (ESC-50)"
CLIP_S = 5.0


def read(root: Storage) -> DatasetTables:
    """Every recording of esc50.csv, with its class and its fold."""
    tree = Tree(root)
    path = tree.one("esc50.csv")
    if path is None:
        remedy = "put the folders meta and audio of github.com/karolpiczak/ESC-50 into it"
        raise InputError("the folder holds no esc50.csv", file=root.url, remedy=remedy)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for number, cells in csv_rows(tree.text(path), tree.name(path), COLUMNS):
        split = fold_split(cells["fold"], SPLITS, tree.name(path), number)
        filename = cells["filename"]
        if not filename.strip() or not cells["category"].strip():
            raise InputError(
                "the row has no file name or no category", file=tree.name(path), row=number, remedy=FETCH_AGAIN
            )
        stem = stem_of(filename)
        remark = id_remark(cells["src_file"])
        rows.add(
            split,
            stem,
            path=None if climbs(filename) else index.one(stem),
            out_of_root=climbs(filename),
            captions=[label_caption(cells["category"])],
            identity=freesound(cells["src_file"]),
            licence=LICENCE,
            duration_s=CLIP_S,
            notes=[remark] if remark else [],
        )
    notes = tuple(tree.advice) if len(rows.used_paths()) < len(rows) else ()
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), notes)


DATASET = PublishedDataset(NAME, read, PUBLISHED, splits=SPLITS, protected=SPLITS)
