"""VGGSounder (Zverev et al., ICCV 2025): the test clips of VGGSound with every class that is heard or seen in them.

``vggsounder.csv`` has a row for each class of a clip: ``video_id`` (video and start, ``---g-f_I2yQ_000001``),
``label``, ``modality`` (``A`` heard, ``V`` seen, ``AV`` both), and whether the clip has background music, a still image
or a voice over.  Classes that are heard are captions of kind ``label``, and what a clip has besides is a keyword.  All
is protected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset, label_caption
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs

NAME = "vggsounder"
TABLE = "vggsounder.csv"
META = ("background_music", "static_image", "voice_over")
COLUMNS = ("video_id", "label", "modality", *META)
MODALITIES = ("A", "V", "AV")
LICENCE = "Apache-2.0 (VGGSounder's annotations)"
CLIP_S = 10.0
LEAST_AUDIO = 0.7  # videos disappear
_CLIP = re.compile(r"(\S+)_(\d{1,6})")


@dataclass
class _Clip:
    """What the rows of a clip say."""

    video: str
    start: float
    captions: list[PublishedCaption] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    seen: int = 0  # classes that are seen only


def read(root: Storage) -> DatasetTables:
    """Every clip of vggsounder.csv with the classes that are heard in it."""
    tree = Tree(root)
    path = tree.one(TABLE)
    if path is None:
        raise InputError(
            f"the folder holds no {TABLE}", file=root.url, remedy=f"put {TABLE} of vggsounder.github.io into it"
        )
    index, rows = tree.index(), CatalogueBuilder(NAME, tree.outside)
    for stem, clip in _clips(tree, path).items():
        outside = climbs(stem)
        audio = None if outside else _audio(index, stem, clip)
        rows.add(
            "test",
            stem,
            path=audio,
            out_of_root=outside,
            captions=clip.captions,
            identity=youtube(clip.video, clip.start),
            interval=(clip.start, clip.start + CLIP_S),
            licence=LICENCE,
            keywords=clip.keywords,
            notes=[f"{clip.seen} classes are seen and not heard"] if clip.seen else [],
        )
    notes = tuple(tree.advice) if len(rows.used_paths()) < len(rows) else ()
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), notes)


def _clips(tree: Tree, path: str) -> dict[str, _Clip]:
    """The clips by their names, in the order of their first rows."""
    found: dict[str, _Clip] = {}
    file = tree.name(path)
    for row, cells in csv_rows(tree.text(path), file, COLUMNS):
        name, modality, label = (cells[column].strip() for column in ("video_id", "modality", "label"))
        parts = _CLIP.fullmatch(name)
        if parts is None or modality not in MODALITIES or not label:
            what = "not a row of video_id (VIDEO_START), label, modality (A, V or AV)"
            value = ",".join((name, label, modality))[:80]
            raise InputError(what, file=file, row=row, value=value, remedy=FETCH_AGAIN)
        clip = found.setdefault(name, _Clip(parts[1], float(parts[2])))
        caption = label_caption(label)
        if modality == "V":
            clip.seen += 1
        elif caption not in clip.captions:
            clip.captions.append(caption)
        here = [column.replace("_", " ") for column in META if cells[column].strip().lower() == "true"]
        clip.keywords += [word for word in here if word not in clip.keywords]
    return found


def _audio(index: AudioIndex, stem: str, clip: _Clip) -> str | None:
    """The clip's file under one of the names that downloaders of VGGSound give it."""
    names = (stem, f"{clip.video}_{clip.start:g}", f"{clip.video}_{clip.start:g}_{clip.start + CLIP_S:g}")
    return next((path for name in names if (path := index.one(name)) is not None), None)


DATASET = PublishedDataset(NAME, read, {}, splits=("test",), protected=("test",), least_audio=LEAST_AUDIO)
