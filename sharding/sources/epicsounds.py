"""EPIC-SOUNDS (Huh et al., 2023): sounds of EPIC-KITCHENS-100, with their times in long videos of kitchens.

``EPIC_Sounds_train.csv`` and ``EPIC_Sounds_validation.csv``, which is protected, have a row for each sound: video,
start and stop as ``00:00:02.466``, its class and the words of the annotator.  A clip is the sound of a whole video,
``P01_01.wav`` or the video itself; classes are captions of kind ``label`` and the annotators' words captions of kind
``human``, all with their times.  The test set is published without classes and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, LONGEST_S, csv_rows
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset, label_caption
from sharding.sources.tree import AudioIndex, Tree, climbs

NAME = "epicsounds"
TABLES = {"train": "EPIC_Sounds_train.csv", "validation": "EPIC_Sounds_validation.csv"}
COLUMNS = ("video_id", "start_timestamp", "stop_timestamp", "class")
LICENCE = "CC BY-NC 4.0 (EPIC-SOUNDS)"
_CLOCK = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)")


def read(root: Storage) -> DatasetTables:
    """Every video of the tables, with its sounds and their times."""
    tree = Tree(root)
    paths = {split: tree.one(name) for split, name in TABLES.items()}
    if not any(paths.values()):
        remedy = f"put {' or '.join(TABLES.values())} of github.com/epic-kitchens/epic-sounds-annotations into it"
        raise InputError("the folder holds no table of sounds", file=root.url, remedy=remedy)
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for split, path in paths.items():
        if path is not None:
            add_videos(index, rows, split, timed_captions(tree, path), "epic-kitchens", LICENCE)
    notes = [f"{TABLES[split]} is absent" for split, path in paths.items() if path is None]
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def timed_captions(tree: Tree, path: str) -> dict[str, list[PublishedCaption]]:
    """The classes and descriptions of each video of a table, with their times; also of tables without descriptions."""
    found: dict[str, list[PublishedCaption]] = {}
    file = tree.name(path)
    for row, cells in csv_rows(tree.text(path), file, COLUMNS):
        video, name = cells["video_id"].strip(), cells["class"].strip()
        start, stop = _seconds(cells["start_timestamp"]), _seconds(cells["stop_timestamp"])
        if not video or not name or start is None or stop is None or not start < stop < LONGEST_S:
            what = "not a row of video_id, start_timestamp and a later stop_timestamp (HH:MM:SS.mmm), class"
            value = ",".join(cells[column] for column in COLUMNS)[:80]
            raise InputError(what, file=file, row=row, value=value, remedy=FETCH_AGAIN)
        captions = found.setdefault(video, [])
        label = label_caption(name)._replace(onset=start, offset=stop)
        words = PublishedCaption(" ".join((cells.get("description") or "").split()), "human", start, stop)
        kept = [label] if not words.text or words.normal_form == label.normal_form else [label, words]
        captions += [caption for caption in kept if caption not in captions]
    return found


def add_videos(
    index: AudioIndex,
    rows: CatalogueBuilder,
    split: str,
    videos: dict[str, list[PublishedCaption]],
    scheme: str,
    licence: str,
) -> None:
    """Add a clip for each video.

    Args:
        index: the sound files of the dataset's folder.
        rows: the catalogue.
        split: the split of the videos.
        videos: their captions by their names.
        scheme: the scheme of their identities, which are ``scheme:video``.
        licence: the licence of the annotations.
    """
    for video, captions in videos.items():
        outside = climbs(video)
        found: Sequence[str] = [] if outside else index.all(video)
        further = [f"further copies of its audio: {', '.join(found[1:])}"] if len(found) > 1 else []
        rows.add(
            split,
            video,
            path=found[0] if found else None,
            out_of_root=outside,
            captions=captions,
            identity=f"{scheme}:{video}",
            licence=licence,
            notes=further,
        )


def _seconds(clock: str) -> float | None:
    """Seconds of ``HH:MM:SS.mmm``; None if it is anything else."""
    parts = _CLOCK.fullmatch(clock.strip())
    return None if parts is None else round(3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3]), 9)


DATASET = PublishedDataset(NAME, read, {}, splits=tuple(TABLES), protected=("validation",))
