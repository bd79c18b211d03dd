"""AudioCaps v1 and v2 (Kim et al., NAACL 2019; github.com/cdjkim/audiocaps).

A clip is ten seconds of a YouTube video.  Rows of the two releases describe the same clip where video and start
agree, even if their captions and caption ids differ.  Such a clip has one row in the catalogue, with the captions of
v1 and then those of v2 that differ from v1's by more than case or spacing (most captions of v2 are v1's in lower case).
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass, field

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, csv_rows, seconds
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedCaption, PublishedDataset
from sharding.sources.identities import youtube
from sharding.sources.tree import AudioIndex, Tree, climbs, folders, stem_of

NAME = "audiocaps"
PUBLISHED = {"train": (49838, 49838), "val": (495, 2475), "test": (975, 4875)}  # v1: clips, captions
SPLITS = tuple(PUBLISHED)
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
LICENCE = "academic use only (AudioCaps)"
CLIP_S = 10.0
# Videos disappear.  Of the reported downloads, the poorest had 380 of the 495 val clips (xieh97/text-audio-retrieval).
LEAST_AUDIO = 0.7
_HEADER = ",".join(COLUMNS)
_ROW = re.compile(r'"?\d+"?,[^,\s]+,"?\d+(\.\d+)?"?,')
_V2 = re.compile(r"(?:^|[^a-z0-9])v?2(?:\.0)?(?:[^0-9]|$)|dataset2")


@dataclass
class _Clip:
    """One video segment of one split."""

    video: str
    start: float
    captions: list[PublishedCaption] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)  # audiocap_ids, under which its audio may be stored
    notes: list[str] = field(default_factory=list)

    @property
    def stem(self) -> str:
        return f"{self.video}_{self.start:g}"


def read(root: Storage) -> DatasetTables:
    """Every clip of every table, with its audio, which may have any of the names that downloaders give it."""
    tree = Tree(root)
    tables = _tables(tree)
    clips: dict[str, dict[str, _Clip]] = {split: {} for split in SPLITS}
    for split, path in tables:
        _read_table(tree, path, clips[split])
    segments: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for clip in clips[split].values():
            segments[clip.video].add(clip.stem)
    index, orphans = _audio(tree)
    rows = CatalogueBuilder(NAME, tree.outside)
    claimed: set[str] = set()
    for split in SPLITS:
        for clip in clips[split].values():
            claimed |= _add(rows, split, clip, index, alone=len(segments[clip.video]) == 1)
    notes = [] if len(rows) == len(rows.used_paths()) else list(tree.advice)
    notes += [f"no table of the {split} split" for split in SPLITS if not clips[split]]
    if orphans:
        notes.append(f"{len(orphans)} numbered recordings with a .json beside them carry no id")
    return DatasetTables(rows.table(), tree.orphans(NAME, claimed), tuple(notes))


def _tables(tree: Tree) -> list[tuple[str, str]]:
    """(split, path) of each table, v1 before v2; tables of other projects lack the start and are skipped."""
    found: list[tuple[str, str]] = []
    others: list[str] = []
    for path in tree.named(*(f"{split}.csv" for split in SPLITS)):
        header = tree.text(path).partition("\n")[0]
        if "youtube_id" in header or "audiocap_id" in header:
            found.append((posixpath.basename(path)[:-4], path))
        else:
            others.append(path)
    if not found:
        raise InputError(
            "the folder holds no AudioCaps table"
            if not others
            else "the table lacks the columns youtube_id, start_time",
            file=tree.root.url if not others else tree.name(others[0]),
            row=1 if others else None,
            remedy="put train.csv, val.csv and test.csv of github.com/cdjkim/audiocaps into the folder",
        )
    return sorted(found, key=lambda item: (bool(_V2.search(item[1].lower())), item[1]))


def _read_table(tree: Tree, path: str, clips: dict[str, _Clip]) -> None:
    file = tree.name(path)
    text, lines, joined = _mend(tree.text(path), file)
    before = {stem: {caption.normal_form for caption in clip.captions} for stem, clip in clips.items()}
    for row, cells in csv_rows(text, file, COLUMNS, lines=lines):
        start = seconds(cells["start_time"])
        if start is None or start < 0:
            raise InputError(
                "start_time is not a number of seconds", file=file, row=row, value=cells["start_time"],
                remedy=FETCH_AGAIN,
            )  # fmt: skip
        if not cells["youtube_id"].strip():
            raise InputError("youtube_id is empty", file=file, row=row, remedy=FETCH_AGAIN)
        fresh = _Clip(cells["youtube_id"], start)
        clip = clips.setdefault(fresh.stem, fresh)
        if cells["audiocap_id"] not in clip.numbers:
            clip.numbers.append(cells["audiocap_id"])
        words = cells["caption"]
        if "\n" in words or "\r" in words:
            words = " ".join(words.split())
            clip.notes.append(f"caption broken over several lines in {path}, row {row}; joined with a space")
        if row in joined:
            clip.notes.append(f"caption broken over several lines in {path}, row {row}; joined with a space")
        caption = PublishedCaption(words, "human")
        if not words.strip():
            clip.notes.append(f"empty caption in {path}, row {row}")
        elif caption.normal_form not in before.get(clip.stem, ()):
            clip.captions.append(caption)


def _mend(text: str, file: str) -> tuple[str, list[int], set[int]]:
    """Join rows that a newline inside an unquoted caption broke (three in the first releases of v2).

    A line that does not begin with a number is the rest of the caption in the line above it.

    Returns:
        The text, the original line number of each of its lines, and the original numbers of the lines that were
        lengthened.
    """
    head, *body = text.replace("\r\n", "\n").split("\n")
    if head.strip() != _HEADER:
        return text, list(range(1, len(body) + 3)), set()
    whole, lines, joined = [head], [1], set()
    for number, line in enumerate(body, start=2):
        if not line.strip() or _ROW.match(line):
            whole.append(line)
            lines.append(number)
            continue
        if re.match(r"\d+(,|$)", line) or len(whole) == 1:
            raise InputError(f"not a row of {_HEADER}", file=file, row=number, value=line[:80], remedy=FETCH_AGAIN)
        while not whole[-1].strip() and len(whole) > 1:
            whole.pop()
            lines.pop()
        whole[-1] = f"{whole[-1].rstrip()} {line.strip()}"
        joined.add(lines[-1])
    return "\n".join(whole), lines, joined


def _audio(tree: Tree) -> tuple[AudioIndex, set[str]]:
    """Audio by name, and numbered files that are left out.

    A numbered file with a .json of the same name comes from another project (LAION), whose numbers
    are not audiocap_ids.
    """
    numbered = {
        path for path in tree.audio if stem_of(path).isdigit() and f"{path.rpartition('.')[0]}.json" in tree.file_set
    }
    return tree.index(path for path in tree.audio if path not in numbered), numbered


def _add(rows: CatalogueBuilder, split: str, clip: _Clip, index: AudioIndex, alone: bool) -> set[str]:
    """Add a clip; returns every file that is its audio."""
    outside = climbs(clip.stem)
    names = [clip.stem, f"Y{clip.stem}"]
    if alone:  # without the start, the name says which segment only if the video has one
        names += [f"Y{clip.video}", clip.video]
    found = [path for name in [*names, *clip.numbers] for path in index.all(name)]
    here = [path for path in found if split in folders(path)]
    elsewhere = [path for path in found if not set(SPLITS) & set(folders(path))]
    paths = here + elsewhere
    notes = list(dict.fromkeys(clip.notes))
    if len(paths) > 1:
        notes.append("further copies of its audio: " + ", ".join(paths[1:]))
    rows.add(
        split,
        clip.stem,
        path=paths[0] if paths else None,
        out_of_root=outside,
        captions=clip.captions,
        identity=youtube(clip.video, clip.start),
        interval=(clip.start, clip.start + CLIP_S),
        licence=LICENCE,
        notes=notes,
    )
    return set(paths)


DATASET = PublishedDataset(
    NAME,
    read,
    PUBLISHED,
    splits=SPLITS,
    protected=("val", "test"),
    least_audio=LEAST_AUDIO,
    exclusion_lists_apply=False,
)
