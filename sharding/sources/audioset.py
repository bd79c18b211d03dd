"""AudioSet (Gemmeke et al., 2017): segments of YouTube videos, each with several of 527 classes.

The tables of segments begin with lines of remarks and name classes by their ids; ``class_labels_indices.csv`` says what
these are called.  ``eval`` is protected.  The labels are captions of kind ``label``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, LONGEST_S, csv_rows
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, label_caption
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs

NAME = "audioset"
SPLITS = ("balanced_train", "unbalanced_train", "eval")
LICENCE = "CC BY 4.0 (AudioSet's annotations)"
LEAST_AUDIO = 0.7  # videos disappear
_ROW = re.compile(r'([^,\s]+), *(\d{1,10}(?:\.\d{1,6})?), *(\d{1,10}(?:\.\d{1,6})?), *"([^"]*)"')


class _Segment(NamedTuple):
    video: str
    start: float
    end: float
    classes: list[str]


def read(root: Storage) -> DatasetTables:
    """Every segment of the tables of segments that there are, with its classes by name."""
    tree = Tree(root)
    paths = {split: tree.one(f"{split}_segments.csv") for split in SPLITS}
    if not any(paths.values()):
        names = ", ".join(f"{split}_segments.csv" for split in SPLITS)
        raise InputError(
            "the folder holds no table of segments", file=root.url, remedy=f"put one or more of {names} into it"
        )
    class_names = _class_names(tree)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for split, path in paths.items():
        for row, segment in _segments(tree, path) if path else ():
            unknown = [each for each in segment.classes if each not in class_names]
            if unknown:
                remedy = "use the class_labels_indices.csv that belongs to the tables of segments"
                raise InputError(
                    "a class has no name", file=tree.name(path or ""), row=row, value=unknown[0], remedy=remedy
                )
            outside = climbs(segment.video)
            rows.add(
                split,
                f"{segment.video}_{segment.start:g}",
                path=None if outside else _audio(index, segment),
                out_of_root=outside,
                captions=[label_caption(class_names[each]) for each in segment.classes],
                identity=youtube(segment.video, segment.start),
                interval=(segment.start, segment.end),
                licence=LICENCE,
                duration_s=round(segment.end - segment.start, 6),
            )
    notes = [f"{split}_segments.csv is absent" for split, path in paths.items() if path is None]
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def _class_names(tree: Tree) -> dict[str, str]:
    """Class id to name."""
    path = tree.one("class_labels_indices.csv")
    if path is None:
        remedy = "put class_labels_indices.csv of research.google.com/audioset into it"
        raise InputError("the names of the classes are missing", file=tree.root.url, remedy=remedy)
    table = csv_rows(tree.text(path), tree.name(path), ("mid", "display_name"))
    return {cells["mid"]: cells["display_name"] for _, cells in table if cells["display_name"].strip()}


def _segments(tree: Tree, path: str) -> Iterator[tuple[int, _Segment]]:
    """(line, segment) of each line that is not a comment."""
    for row, line in enumerate(tree.text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _ROW.fullmatch(line.strip())
        if found is None or not float(found[2]) < float(found[3]) < LONGEST_S:
            what = "not a row of YTID, start_seconds, end_seconds, positive_labels"
            raise InputError(what, file=tree.name(path), row=row, value=line[:80], remedy=FETCH_AGAIN)
        classes = [each.strip() for each in found[4].split(",") if each.strip()]
        yield row, _Segment(found[1], float(found[2]), float(found[3]), classes)


def _audio(index: AudioIndex, segment: _Segment) -> str | None:
    """The segment's file under one of the names that downloaders give it.  Each video has one segment."""
    video, start, end = segment.video, segment.start, segment.end
    names = [f"{video}_{start:g}", f"{video}_{start:g}_{end:g}", f"{video}_{1000 * start:.0f}"]
    names += [f"{video}_{1000 * start:.0f}_{1000 * end:.0f}", video]
    found = [path for name in names for each in (name, f"Y{name}") for path in index.all(each)]
    return found[0] if found else None


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=("eval",), least_audio=LEAST_AUDIO)
