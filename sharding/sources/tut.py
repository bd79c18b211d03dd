"""TUT Acoustic Scenes 2016 or 2017 (Mesaros et al., 2016; Zenodo 45739, 165995, 400515, 1040168).

The clips are parts of recordings of places.  ``meta.txt`` gives the scene of each, and its name the recording and the
times in it.  Each part of the development set is in the test set of one of four folds, which is its split here; the
evaluation set is a split of its own.  All are protected.  The scenes are captions of kind ``label``.
"""

from __future__ import annotations

import posixpath
import re

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, label_caption
from sharding.sources.tree import AudioIndex, Tree, climbs, stem_of

NAME = "tut"
FOLDS = tuple(f"fold{number}" for number in range(1, 5))
SPLITS = ("development", *FOLDS, "evaluation")
LICENCE = "academic use only (TUT Acoustic Scenes)"
_PART = re.compile(r"([a-z]\d+)_(\d{1,6})_(\d{1,6})")


def read(root: Storage) -> DatasetTables:
    """Every part that a meta.txt names, with its scene and the fold in which it is tested."""
    tree = Tree(root)
    tables = tree.named("meta.txt")
    if not tables:
        remedy = "put the unpacked folders of TUT-acoustic-scenes-2016 or -2017 into it"
        raise InputError("the folder holds no meta.txt", file=root.url, remedy=remedy)
    index, rows, notes = tree.index(), CatalogueBuilder(NAME, tree.outside), []
    for table in tables:
        folder = posixpath.dirname(table)
        folds = _folds(tree, folder)
        if not folds:
            notes.append(f"{table} has no folds beside it (evaluation_setup/fold1_test.txt and so on)")
        split = "evaluation" if "evaluation" in posixpath.basename(folder) else "development"
        for row, cells in _lines(tree, table):
            if len(cells) < 2 or not cells[0] or not cells[1]:
                what, value = "not a row of file, tab, scene", "\t".join(cells)[:80]
                raise InputError(what, file=tree.name(table), row=row, value=value, remedy=FETCH_AGAIN)
            _add(rows, folds.get(cells[0], split), cells, index, folder)
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def _lines(tree: Tree, path: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of a table whose cells tabs separate; blank lines are left out."""
    lines = enumerate(tree.text(path).splitlines(), start=1)
    return [(row, [cell.strip() for cell in line.split("\t")]) for row, line in lines if line.strip()]


def _folds(tree: Tree, folder: str) -> dict[str, str]:
    """The fold in which each file of a development set is tested."""
    found: dict[str, str] = {}
    for number in range(1, 5):
        names = (f"fold{number}_test.txt", f"fold{number}_evaluate.txt")
        for path in tree.named(*names):
            if posixpath.dirname(path) == posixpath.join(folder, "evaluation_setup"):
                for _, cells in _lines(tree, path):
                    found.setdefault(cells[0], f"fold{number}")
    return found


def _add(rows: CatalogueBuilder, split: str, cells: list[str], index: AudioIndex, folder: str) -> None:
    stem, outside = stem_of(cells[0]), climbs(cells[0])
    part = _PART.fullmatch(stem)
    times = (float(part[2]), float(part[3])) if part else None
    recording = cells[2] if len(cells) > 2 and cells[2] else part[1] if part else None
    rows.add(
        split,
        stem,
        path=None if outside else _audio(index, stem, posixpath.join(posixpath.basename(folder), cells[0])),
        out_of_root=outside,
        captions=[label_caption(cells[1])],
        identity=f"tut:{recording}" if recording and split != "evaluation" else None,
        interval=times if times and times[0] < times[1] else None,
        licence=LICENCE,
    )


def _audio(index: AudioIndex, stem: str, path: str) -> str | None:
    """The file of that name below the folder of its meta.txt, also if archives keep the two apart."""
    wanted = posixpath.splitext(path)[0]
    for found in index.all(stem):
        here = posixpath.splitext(found.replace("!/", "/"))[0]
        if here == wanted or here.endswith("/" + wanted):
            return found
    return None


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=(*FOLDS, "evaluation"))
