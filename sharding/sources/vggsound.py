"""VGGSound (Chen et al., 2020): ten seconds of YouTube videos, each of one of 309 classes.

``vggsound.csv`` has no header: video, start in seconds, class, and ``train`` or ``test``, which is protected.  The
labels are captions of kind ``label``.  Video files serve as well as audio files.
"""

from __future__ import annotations

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, label_caption
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs

NAME = "vggsound"
SPLITS = ("train", "test")
COLUMNS = ("video", "start", "class", "split")
LICENCE = "CC BY 4.0 (VGGSound's annotations)"
CLIP_S = 10.0
LEAST_AUDIO = 0.7  # videos disappear


def read(root: Storage) -> DatasetTables:
    """Every clip of vggsound.csv with its class and its split."""
    tree = Tree(root)
    path = tree.one("vggsound.csv")
    if path is None:
        remedy = "put vggsound.csv of www.robots.ox.ac.uk/~vgg/data/vggsound into it"
        raise InputError("the folder holds no vggsound.csv", file=root.url, remedy=remedy)
    text, file = tree.text(path), tree.name(path)
    lines = [1, *range(1, text.count("\n") + 3)]  # the header that is put before it is no line of the file
    table = list(csv_rows(",".join(COLUMNS) + "\n" + text, file, COLUMNS, lines=lines))
    segments: dict[str, set[str]] = {}
    for _, cells in table:
        segments.setdefault(cells["video"], set()).add(cells["start"])
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for row, cells in table:
        start, split = seconds(cells["start"]), cells["split"].strip()
        if start is None or start < 0 or split not in SPLITS or not cells["video"].strip():
            value = ",".join(cells.values())[:80]
            raise InputError(
                "a row must be: video, start, class, split", file=file, row=row, value=value, remedy=FETCH_AGAIN
            )
        outside = climbs(cells["video"])
        rows.add(
            split,
            f"{cells['video']}_{start:g}",
            path=None if outside else _audio(index, cells["video"], start, alone=len(segments[cells["video"]]) == 1),
            out_of_root=outside,
            captions=[label_caption(cells["class"])] if cells["class"].strip() else [],
            identity=youtube(cells["video"], start),
            interval=(start, start + CLIP_S),
            licence=LICENCE,
        )
    notes = tuple(tree.advice) if len(rows.used_paths()) < len(rows) else ()
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), notes)


def _audio(index: AudioIndex, video: str, start: float, alone: bool) -> str | None:
    """The clip's file under one of the names that downloaders give it; the video's name alone, if it has one clip."""
    names = [f"{video}_{int(start):06d}", f"{video}_{start:g}", f"{video}_{start:g}_{start + CLIP_S:g}"]
    found = [path for name in names + [video] * alone for path in index.all(name)]
    return found[0] if found else None


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=("test",), least_audio=LEAST_AUDIO)
