"""TACOS (Primus et al., 2025; Zenodo 15379789): excerpts of Freesound recordings, captioned in time.

People wrote the strong captions, each with an onset and an offset in the clip.  A language model wrote the one weak
caption of each clip.  The catalogue has both, strong captions first; a training recipe chooses between them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows, keywords, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import freesound, id_remark
from sharding.sources.tree import AudioIndex, Tree, climbs, stem_of

NAME = "tacos"
# Both splits together ("*"): 47,748 strong captions, and one weak caption for each recording.
PUBLISHED = {"*": (12358, 47748 + 12358)}
TABLES = ("metadata.csv", "annotations_strong.csv", "annotations_weak.csv")
SPLITS = {"development": "development_split.csv", "test": "test_split.csv"}
COLUMNS = ("filename", "freesound_id", "license", "start_time_s", "end_time_s")


@dataclass
class _Clip:
    """What the tables say about one file."""

    metadata: dict[str, str] = field(default_factory=dict)
    strong: list[PublishedCaption] = field(default_factory=list)
    weak: list[PublishedCaption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Seconds of the Freesound original."""
        start, end = seconds(self.metadata.get("start_time_s")), seconds(self.metadata.get("end_time_s"))
        return (start, end) if start is not None and end is not None and 0 <= start < end else None

    @property
    def duration_s(self) -> float | None:
        # Rounded: 12.3 s to 20.5 s are 8.2 s, not 8.199999999999999 s.
        return None if self.interval is None else round(self.interval[1] - self.interval[0], 6)


def read(root: Storage) -> DatasetTables:
    """Every clip of metadata.csv with its strong and weak captions and its split."""
    tree = Tree(root)
    paths = {name: tree.one(name) for name in TABLES}
    if paths["metadata.csv"] is None or not (paths["annotations_strong.csv"] or paths["annotations_weak.csv"]):
        lacking = [name for name, path in paths.items() if path is None]
        raise InputError(
            f"{' and '.join(lacking)} missing",
            file=root.url,
            remedy="put metadata.csv, annotations_strong.csv, annotations_weak.csv into it (Zenodo 15379789)",
        )
    notes = [f"{name} is absent" for name, path in paths.items() if path is None]
    clips = _metadata(tree, paths["metadata.csv"])
    if path := paths["annotations_strong.csv"]:
        _strong(tree, path, clips)
    if path := paths["annotations_weak.csv"]:
        _weak(tree, path, clips)
    splits = _splits(tree, notes)
    index = tree.index()
    rows = CatalogueBuilder(NAME, tree.outside)
    claimed: set[str] = set()
    for filename, clip in clips.items():
        claimed |= _add(rows, filename, clip, splits, index)
    if len(rows.used_paths()) < len(rows):
        notes += tree.advice
    return DatasetTables(rows.table(), tree.orphans(NAME, claimed), tuple(notes))


def _metadata(tree: Tree, path: str) -> dict[str, _Clip]:
    clips: dict[str, _Clip] = {}
    for row, cells in csv_rows(tree.text(path), tree.name(path), COLUMNS):
        if not cells["filename"].strip():
            raise InputError("the row has no file name", file=tree.name(path), row=row, remedy=FETCH_AGAIN)
        clip = clips.setdefault(cells["filename"], _Clip(cells))
        if clip.metadata is not cells:
            clip.notes.append(f"its metadata occur twice; row {row} is not used")
            continue
        for column in ("start_time_s", "end_time_s"):
            if cells[column].strip() and seconds(cells[column]) is None:
                raise InputError(
                    f"{column} is not a number", file=tree.name(path), row=row, value=cells[column], remedy=FETCH_AGAIN
                )
        original = seconds(cells.get("duration"))
        if clip.interval is None:
            clip.notes.append("start_time_s and end_time_s are not two times in order")
        elif original is not None and clip.interval[1] > original + 0.01:
            clip.notes.append(f"excerpt ends after its original ({clip.interval[1]:g} s of {original:g} s)")
    return clips


def _clip(clips: dict[str, _Clip], filename: str) -> _Clip:
    if filename not in clips:
        clips[filename] = _Clip(notes=["no row in metadata.csv"])
    return clips[filename]


def _strong(tree: Tree, path: str, clips: dict[str, _Clip]) -> None:
    columns = ("filename", "text", "onset", "offset")
    for row, cells in csv_rows(tree.text(path), tree.name(path), columns):
        onset, offset = seconds(cells["onset"]), seconds(cells["offset"])
        if onset is None or offset is None:
            column = "onset" if onset is None else "offset"
            raise InputError(
                f"{column} is not a number of seconds", file=tree.name(path), row=row, value=cells[column],
                remedy=FETCH_AGAIN,
            )  # fmt: skip
        clip = _clip(clips, cells["filename"])
        if not cells["text"].strip():
            clip.notes.append(f"empty caption in {path}, row {row}")
            continue
        clip.strong.append(_clipped(clip, cells["text"], onset, offset))


def _clipped(clip: _Clip, text: str, onset: float, offset: float) -> PublishedCaption:
    """The caption with its interval cut to the clip; without an interval if nothing of it lies in the clip."""
    end = clip.duration_s if clip.duration_s is not None else max(onset, offset)
    inside = max(0.0, onset), min(end, offset)
    if inside == (onset, offset) and onset < offset:
        return PublishedCaption(text, "human", onset, offset)
    if inside[0] >= inside[1]:
        clip.notes.append(f"interval without length in the clip, dropped: {onset:g} to {offset:g} s of {end:g} s")
        return PublishedCaption(text, "human")
    clip.notes.append(f"interval reached outside the clip, clipped: {onset:g} to {offset:g} s of {end:g} s")
    return PublishedCaption(text, "human", *inside)


def _weak(tree: Tree, path: str, clips: dict[str, _Clip]) -> None:
    text = tree.text(path)
    head = text.partition("\n")[0].split(",")
    column = "caption" if "text" not in [cell.strip() for cell in head] and "caption" in text[:200] else "text"
    for row, cells in csv_rows(text, tree.name(path), ("filename", column)):
        clip = _clip(clips, cells["filename"])
        if cells[column].strip():
            clip.weak.append(PublishedCaption(cells[column], "machine"))
        else:
            clip.notes.append(f"empty caption in {path}, row {row}")


def _splits(tree: Tree, notes: list[str]) -> dict[str, list[str]]:
    """The splits that name each file; empty if there is no table of splits."""
    paths = {split: tree.one(name) for split, name in SPLITS.items()}
    if paths["development"] and not paths["test"]:  # clips of the test split would count as training clips
        raise InputError(
            "there is development_split.csv and no test_split.csv",
            file=tree.root.url,
            remedy="put test_split.csv into the same folder (Zenodo 15379789)",
        )
    named: dict[str, list[str]] = {}
    for split, path in paths.items():
        if path is None:
            continue
        for _, cells in csv_rows(tree.text(path), tree.name(path), ("filename",)):
            named.setdefault(cells["filename"], []).append(split)
    absent = [SPLITS[split] for split, path in paths.items() if path is None]
    if absent:
        notes.append(f"{' and '.join(absent)} absent: clips that no split table names count as development")
    return named


def _add(
    rows: CatalogueBuilder, filename: str, clip: _Clip, splits: dict[str, list[str]], index: AudioIndex
) -> set[str]:
    """Add a clip; returns every file that is its audio."""
    row, stem = clip.metadata, stem_of(filename)
    sound_id = (row.get("freesound_id") or "").strip() or stem
    identity = freesound(sound_id)
    named = splits.get(filename, [])
    split = "test" if "test" in named else "development"
    notes = clip.notes
    if remark := id_remark(row.get("freesound_id") or ""):
        notes.append(remark)
    if not named:
        notes.append("no split table names it: counts as development")
    elif len(set(named)) > 1:
        notes.append("both splits name it: counts as test")
    if rows.clip_id(split, sound_id) in rows:
        sound_id = filename if rows.clip_id(split, stem) in rows else stem
        notes.append("its freesound_id occurs twice in the metadata")
    paths = [] if climbs(filename) else index.all(stem)
    if len(paths) > 1:
        notes.append("further copies of its audio: " + ", ".join(paths[1:]))
    rows.add(
        split,
        sound_id,
        path=paths[0] if paths else None,
        out_of_root=climbs(filename),
        captions=clip.strong + clip.weak,
        identity=identity,
        interval=clip.interval,
        licence=row.get("license"),
        uploader=row.get("manufacturer"),
        title=row.get("title") or row.get("original_filename"),
        keywords=keywords(row.get("keywords") or ""),
        duration_s=clip.duration_s,
        notes=[f"{note} ({count} times)" if count > 1 else note for note, count in Counter(notes).items()],
    )
    return set(paths)


DATASET = PublishedDataset(NAME, read, PUBLISHED, splits=tuple(SPLITS), protected=("test",))
