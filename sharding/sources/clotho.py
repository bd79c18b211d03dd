"""Clotho v2.1 (Drossos et al., ICASSP 2020; Zenodo 4783391) and the challenge's sets that came with it.

The published tables may lie anywhere below the folder.  Which split a folder of audio belongs to is decided by the
file names in it, not by the folder's name: copies of the dataset use ``test`` for the evaluation split, for the
validation split, and for either of two challenge sets.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import csv_rows, keywords, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import freesound, id_remark
from sharding.sources.tree import Tree, climbs, folders, stem_of

NAME = "clotho"
PUBLISHED = {"development": (3839, 19195), "validation": (1045, 5225), "evaluation": (1045, 5225)}
SPLITS = tuple(PUBLISHED)
RATE = 44100  # of start_end_samples, which count samples of the Freesound original

# Table of metadata, and the names that its folder of audio goes by, for each challenge set.
CHALLENGE_METADATA = {"test": "clotho_metadata_test.csv", "retrieval": "retrieval_audio_metadata.csv"}
FOLDERS = {
    "development": ("development", "clotho_audio_development"),
    "validation": ("validation", "clotho_audio_validation"),
    "evaluation": ("evaluation", "clotho_audio_evaluation"),
    "test": ("test", "clotho_audio_test"),
    "retrieval": ("test_retrieval_audio", "retrieval_audio"),
    "analysis": ("clotho_analysis", "clotho_analysis_2022", "analysis"),
}
# Copies of the caption tables under the names that other code bases use.  Where `valid.csv` is present, the code base
# calls evaluation "valid" and validation "test".
RENAMED = {"train.csv": "development", "val.csv": "validation", "test.csv": "evaluation"}
RENAMED_VALID = {"train.csv": "development", "valid.csv": "evaluation", "test.csv": "validation"}
_KNOWN_FOLDERS = frozenset({"train", "val", "valid", *(name for names in FOLDERS.values() for name in names)})
_SAMPLES = re.compile(r"\[\s*(\d{1,15})\s*,\s*(\d{1,15})\s*\]")


@dataclass
class _Entry:
    """What the tables say about one file name of one split."""

    captions: list[PublishedCaption] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_Split = dict[str, _Entry]  # by file name, in published order


def read(root: Storage) -> DatasetTables:
    """The three splits, the challenge's test, retrieval and analysis sets where present, and their audio."""
    tree = Tree(root)
    notes: list[str] = []
    splits = _read_tables(tree, notes)
    if not splits:
        raise InputError(
            "the folder holds no Clotho table",
            file=root.url,
            remedy="put clotho_captions_<split>.csv and clotho_metadata_<split>.csv into it (Zenodo 4783391)",
        )
    finder = _AudioFinder(tree, splits, notes)
    rows = CatalogueBuilder(NAME, tree.outside)
    claimed: set[str] = set()
    for split, entries in splits.items():
        for file_name, entry in entries.items():
            claimed |= _add(rows, split, file_name, entry, finder)
    analysis = tree.index(finder.analysis)
    for stem in dict.fromkeys(map(stem_of, finder.analysis)):
        rows.add("analysis", stem, path=analysis.one(stem))
        claimed.update(analysis.all(stem))
    missing = len(rows) - len(rows.used_paths())
    notes += tree.advice if missing else []
    return DatasetTables(rows.table(), tree.orphans(NAME, claimed), tuple(notes))


def _add(rows: CatalogueBuilder, split: str, file_name: str, entry: _Entry, finder: _AudioFinder) -> set[str]:
    """Add a clip; returns every file that is its audio."""
    row = entry.metadata
    outside = climbs(file_name)
    paths, remark = ([], None) if outside else finder.find(split, file_name)
    sound_id = row.get("sound_id", "")
    identity = freesound(sound_id)
    interval, odd = _interval(row, identity)
    rows.add(
        split,
        file_name.removesuffix(".wav"),
        path=paths[0] if paths else None,
        out_of_root=outside,
        captions=entry.captions,
        identity=identity,
        interval=interval,
        licence=row.get("license"),
        uploader=row.get("manufacturer"),
        title=file_name,
        keywords=keywords(row.get("keywords") or ""),
        notes=[note for note in (*entry.notes, remark, odd, id_remark(sound_id)) if note],
    )
    return set(paths)


def _interval(row: dict[str, str], identity: str | None) -> tuple[tuple[float, float | None] | None, str | None]:
    """The interval in seconds of the original, and a remark; an empty cell means that the whole file was used."""
    cell = (row.get("start_end_samples") or "").strip()
    if not row or "start_end_samples" not in row:
        return None, None
    if not cell:
        return ((0.0, None) if identity else None), None
    found = _SAMPLES.fullmatch(cell)
    if not found or int(found[2]) <= int(found[1]):
        return None, f"start_end_samples are not two samples in order: {cell}"
    start, end = seconds(int(found[1]) / RATE), seconds(int(found[2]) / RATE)
    if start is None or end is None:
        return None, f"start_end_samples are not samples of a recording: {cell}"
    return (start, end), None


def _read_tables(tree: Tree, notes: list[str]) -> dict[str, _Split]:
    splits: dict[str, _Split] = {}
    captions = {split: tree.one(f"clotho_captions_{split}.csv") for split in SPLITS}
    published = any(captions.values()) or any(tree.one(f"clotho_metadata_{split}.csv") for split in SPLITS)
    if not published:
        captions = _renamed_tables(tree, notes)
    for split in SPLITS:
        metadata = tree.one(f"clotho_metadata_{split}.csv")
        table = captions.get(split)
        if not table and not metadata:
            if captions:
                notes.append(f"no table of the {split} split")
            continue
        if published and not (table and metadata):
            lacking = "metadata" if table else "captions"
            raise InputError(
                f"clotho_{lacking}_{split}.csv is missing",
                file=tree.root.url,
                remedy=f"put it into the folder of {table or metadata} (Zenodo 4783391)",
            )
        entries = _captions(tree, table) if table else {}
        if metadata:
            _join(entries, _metadata(tree, metadata, notes), split)
        else:
            notes.append(f"no metadata of the {split} split: its Freesound ids are unknown")
        splits[split] = entries
    if not splits:
        return {}
    for split, name in CHALLENGE_METADATA.items():
        if path := tree.one(name):
            entries = {}
            _join(entries, _metadata(tree, path, notes), split)
            splits[split] = entries
    if tree.named("retrieval_captions.csv"):
        notes.append("retrieval_captions.csv holds queries that belong to no clip; they are not in the catalogue")
    return splits


def _renamed_tables(tree: Tree, notes: list[str]) -> dict[str, str | None]:
    names = RENAMED_VALID if tree.named("valid.csv") else RENAMED
    found: dict[str, str | None] = {}
    for name, split in names.items():
        if path := tree.one(name):
            found[split] = path
            notes.append(f"{path} is read as the captions of {split}")
    return found


def _captions(tree: Tree, path: str) -> _Split:
    entries: _Split = {}
    for row, cells in csv_rows(tree.text(path), tree.name(path), ("file_name", "caption_1")):
        name = cells["file_name"]
        if not name.strip():
            raise InputError("the row has no file name", file=tree.name(path), row=row, remedy="delete the row")
        texts = [text for column, text in cells.items() if re.fullmatch(r"caption_\d+", column)]
        entry = entries.setdefault(name, _Entry())
        if entry.captions:
            entry.notes.append(f"its captions occur twice in the table; row {row} repeats them")
        if blank := sum(not text.strip() for text in texts):
            entry.notes.append(f"captions empty in the table: {blank}")
        known = {caption.normal_form for caption in entry.captions}
        new = [PublishedCaption(text, "human") for text in texts if text.strip()]
        entry.captions += [caption for caption in new if caption.normal_form not in known]
    return entries


def _metadata(tree: Tree, path: str, notes: list[str]) -> dict[str, dict[str, str]]:
    """Rows by file name.  The published tables are ISO-8859-1; copies in UTF-8 are recognised."""
    data = tree.read(path)
    encoding = "iso-8859-1"
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            encoding = "utf-8"
            notes.append(f"{path} is UTF-8, not ISO-8859-1 as published, and is read as UTF-8")
    text = tree.text(path, encoding)
    head = text.partition("\n")[0]
    delimiter = ";" if head.count(";") > head.count(",") else ","
    challenge = path.endswith(tuple(CHALLENGE_METADATA.values()))
    required = ("file_name",) if challenge else ("file_name", "sound_id", "start_end_samples", "license")
    found: dict[str, dict[str, str]] = {}
    for _, cells in csv_rows(text, tree.name(path), required, delimiter):
        found.setdefault(cells["file_name"], cells)
    return found


def _join(entries: _Split, metadata: dict[str, dict[str, str]], split: str) -> None:
    """Give each entry its metadata.  Some copies of the tables lost leading or trailing spaces of three names."""
    stripped = defaultdict(list)
    for name in metadata:
        stripped[name.strip()].append(name)
    for name in list(entries):
        same = stripped.get(name.strip(), [])
        if name in metadata or len(same) != 1 or same[0] in entries or same[0] not in metadata:
            continue
        entry = entries[name]
        entry.notes.append(f"the captions call it {name!r}, the metadata {same[0]!r}")
        spaced = max(name, same[0], key=len)  # the longer name is the published one: copying loses spaces
        entry.metadata = metadata.pop(same[0])
        if spaced != name:
            renamed = {spaced if key == name else key: value for key, value in entries.items()}
            entries.clear()
            entries.update(renamed)
    for name, cells in metadata.items():
        if name not in entries and split in SPLITS:
            entries[name] = _Entry(notes=["no captions in the table"])
        entry = entries.setdefault(name, _Entry())
        entry.metadata = cells
        if any("\ufffd" in cell for cell in cells.values()):
            entry.notes.append("a letter was lost when its metadata were re-encoded")
    for entry in entries.values():
        if not entry.metadata:
            entry.notes.append("no row in the metadata")


class _AudioFinder:
    """Finds the audio file of a row.

    A folder belongs to the split that most of its file names belong to, or else to the split that it is named
    after.  The file of a row is searched in the folders of the row's split.  If the name occurs in one split only, the
    folders that belong to no split are searched too.
    """

    def __init__(self, tree: Tree, splits: dict[str, _Split], notes: list[str]) -> None:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for path in tree.audio:
            by_folder[path.rpartition("/")[0]].append(path)
        owners: dict[str, list[str]] = defaultdict(list)
        for split, entries in splits.items():
            for name in entries:
                owners[_plain(name)].append(split)
        self.owners = owners
        of_split: dict[str, list[str]] = defaultdict(list)
        loose: list[str] = []
        self.analysis: list[str] = []
        for folder, paths in by_folder.items():
            called = _called(folder)
            holds = self._split_of(paths, called)
            if holds == "analysis":
                self.analysis += paths
            elif holds:
                of_split[holds] += paths
                if holds != called:
                    notes.append(f"the folder {folder or '.'} holds the names of {holds} and is read as {holds}")
            if called is None and holds != "analysis":  # it may hold files of other splits too
                loose += paths
        self.of_split = {split: tree.index(paths) for split, paths in of_split.items()}
        self.loose = tree.index(loose)
        # The archives of the two challenge sets unpack into the same folder.
        self.challenge = tree.index(path for split in CHALLENGE_METADATA for path in of_split[split])

    def _split_of(self, paths: list[str], called: str | None) -> str | None:
        counts: Counter[str] = Counter()
        for path in paths:
            counts.update(self.owners.get(_plain(path.rpartition("/")[2]), ()))
        top = max(counts.values(), default=0)
        if called and counts[called] == top:
            return called
        best = [split for split, count in counts.items() if count == top]
        return best[0] if len(best) == 1 and 2 * top > len(paths) else called or None

    def find(self, split: str, file_name: str) -> tuple[list[str], str | None]:
        """Every copy of the row's audio, best first, and a remark where the file's name differs from the table's."""
        index = self.of_split.get(split)
        for stem in dict.fromkeys((stem_of(file_name), stem_of(file_name).strip(), _plain(file_name))):
            paths = index.all(stem) if index else []
            if not paths and len(self.owners[_plain(file_name)]) == 1:
                paths = (self.challenge.all(stem) if split in CHALLENGE_METADATA else []) or self.loose.all(stem)
            if paths:
                differs = stem != stem_of(file_name)
                return paths, f"its file is called {paths[0].rpartition('/')[2]!r}" if differs else None
        return [], None


def _plain(name: str) -> str:
    """A file name as copies on disk have it: without suffix and edge spaces, ``:`` as ``_``."""
    return stem_of(name).strip().replace(":", "_")


def _called(folder: str) -> str | None:
    """The split whose name a folder has; '' for names such as ``train`` that may mean different splits."""
    for part in reversed(folders(folder + "/")):
        for split, names in FOLDERS.items():
            if part.lower() in names:
                return split
        if part.lower() in _KNOWN_FOLDERS:
            return ""
    return None


DATASET = PublishedDataset(
    NAME,
    read,
    PUBLISHED,
    splits=tuple(FOLDERS),
    protected=("validation", "evaluation"),
    kept=("development",),
    exclusion_lists_apply=False,
)
