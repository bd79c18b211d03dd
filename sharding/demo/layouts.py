"""Writers of the four published layouts: folders, tables, encodings and line ends as users have them.

Each writer takes clips one by one and writes its tables at the end.  The clip ids are those of a catalogue of the same
folders.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from sharding.demo.waves import RATE, Wave

WAVCAPS_TABLES = {
    "FreeSound": "fsd_final",
    "AudioSet_SL": "as_final",
    "BBC_Sound_Effects": "bbc_final",
    "SoundBible": "sb_final",
}
LICENCES = (
    "http://creativecommons.org/publicdomain/zero/1.0/",
    "http://creativecommons.org/licenses/by/3.0/",
    "http://creativecommons.org/licenses/by-nc/3.0/",
    "http://creativecommons.org/licenses/sampling+/1.0/",
)
CLOTHO_RATE = 44100
TACOS_FIELDS = [
    "filename",
    "keywords",
    "freesound_id",
    "sound_link",
    "manufacturer",
    "license",
    "superclass",
    "subclass",
    "title",
    "description",
    "duration",
    "original_samplerate",
    "original_bitdepth",
    "original_file_type",
    "num_downloads",
    "avg_rating",
    "geotag",
    "start_time_s",
    "end_time_s",
    "original_filename",
]


def write_csv(
    path: Path,
    fields: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    encoding: str = "utf-8",
    line_end: str = "\n",
) -> None:
    """Write a table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(fields), lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


def write_audio(path: Path, wave: Wave, rate: int, **form: str) -> None:
    """Write ``wave`` [n], which is at ``RATE``, at ``rate`` (both in Hz); ``form`` goes to ``soundfile.write``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rate != RATE:
        wave = soxr.resample(wave, RATE, rate)
    sf.write(path, np.clip(wave, -1, 1), rate, **form)


def through_mp3(wave: Wave) -> Wave:
    """``wave`` after it was stored as MP3."""
    buffer = io.BytesIO()
    sf.write(buffer, wave, RATE, format="MP3", subtype="MPEG_LAYER_III")
    buffer.seek(0)
    decoded, _ = sf.read(buffer, dtype="float32")
    return np.asarray(decoded, np.float32)


class Clotho:
    """``<split>/<file_name>.wav`` and ``clotho_{captions,metadata}_<split>.csv``; metadata in ISO-8859-1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.captions: dict[str, list[dict[str, str]]] = {}

    def add(
        self,
        split: str,
        file_name: str,
        wave: Wave | None,
        captions: Sequence[str],
        sound_id: str,
        uploader: str,
        start_end_s: tuple[float, float] | None,
        licence: str,
        keywords: Sequence[str],
    ) -> str:
        """Add a clip and return its clip_id; where ``wave`` is None, only the tables have the clip."""
        if wave is not None:
            write_audio(self.root / split / file_name, wave, CLOTHO_RATE, subtype="PCM_16")
        known = sound_id.isdigit()
        span = "" if start_end_s is None else str([round(second * CLOTHO_RATE) for second in start_end_s])
        self.rows.setdefault(split, []).append(
            {
                "file_name": file_name,
                "keywords": ";".join(keywords),
                "sound_id": sound_id,
                "sound_link": f"https://freesound.org/people/{uploader}/sounds/{sound_id}" if known else "",
                "start_end_samples": span,
                "manufacturer": uploader,
                "license": licence,
            }
        )
        texts = {f"caption_{number}": text for number, text in enumerate(captions, 1)}
        self.captions.setdefault(split, []).append({"file_name": file_name} | texts)
        return f"clotho/{split}/{file_name.removesuffix('.wav')}"

    def finish(self) -> None:
        for split, rows in self.rows.items():
            write_csv(self.root / f"clotho_metadata_{split}.csv", list(rows[0]), rows, "iso-8859-1")
            captions = self.captions[split]
            write_csv(self.root / f"clotho_captions_{split}.csv", list(captions[0]), captions)


class AudioCaps:
    """``audio/<split>/<youtube_id>_<start>.flac`` and ``<split>.csv`` with CRLF, one row a caption."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, split: str, youtube_id: str, start: int, wave: Wave | None, captions: Sequence[str]) -> str:
        stem = f"{youtube_id}_{start}"
        if wave is not None:
            write_audio(self.root / "audio" / split / f"{stem}.flac", wave, RATE, subtype="PCM_16")
        rows = self.rows.setdefault(split, [])
        for text in captions:
            number = 10000 + 1000 * len(self.rows) + len(rows)
            clip = {"audiocap_id": number, "youtube_id": youtube_id, "start_time": start}
            rows.append(clip | {"caption": text})
        return f"audiocaps/{split}/{stem}"

    def finish(self) -> None:
        for split, rows in self.rows.items():
            write_csv(self.root / f"{split}.csv", list(rows[0]), rows, line_end="\r\n")


class WavCaps:
    """``audio/<source>/<id>.flac`` (32 kHz mono) and ``json_files/<source>/<table>.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[dict[str, Any]]] = {source: [] for source in WAVCAPS_TABLES}

    def add(
        self,
        source: str,
        ident: str,
        audio: Wave | bytes | None,
        caption: str,
        *,
        author: str = "fieldrecorder",
        title: str = "recording",
        duration_s: float | None = None,
    ) -> str:
        """Add a clip and return its clip_id; ``audio`` is samples, the bytes of a broken file, or None for no file."""
        stem = ident.removesuffix(".wav")
        path = self.root / "audio" / source / f"{stem}.flac"
        if isinstance(audio, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(audio)
        elif audio is not None:
            write_audio(path, audio, RATE, subtype="PCM_16")
            duration_s = len(audio) / RATE
        row = {"id": ident, "caption": caption, "audio": "wav_path", "duration": duration_s or 0.0}
        self.rows[source].append(row | self._published(source, stem, author, title))
        return f"wavcaps/{source}/{stem}"

    @staticmethod
    def _published(source: str, ident: str, author: str, title: str) -> dict[str, Any]:
        """The columns that only this source has."""
        if source == "FreeSound":
            page = f"/people/{author}/sounds/{ident}/"
            return {
                "file_name": f"{title}.wav",
                "href": page,
                "tags": title.lower().split(),
                "description": title,
                "author": author,
                "download_link": f"https://freesound.org{page}download/",
            }
        if source == "BBC_Sound_Effects":
            return {"description": title, "category": "['Nature']", "download_link": ""}
        if source == "SoundBible":
            page = f"{ident}-{title.replace(' ', '-')}.html"
            return {"title": title, "description": title, "author": author, "href": page, "download_link": ""}
        return {}

    def finish(self) -> None:
        for source, table in WAVCAPS_TABLES.items():
            path = self.root / "json_files" / source / f"{table}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"num_captions_per_audio": 1, "data": self.rows[source]}))


class Tacos:
    """``audio/<freesound_id>.mp3`` and five tables that begin with a byte-order mark."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata: dict[str, list[dict[str, str]]] = {"development": [], "test": []}
        self.strong: list[dict[str, str]] = []
        self.weak: list[dict[str, str]] = []

    def add(
        self,
        split: str,
        sound_id: str,
        wave: Wave | None,
        weak: str,
        strong: Sequence[tuple[str, float, float]],
        *,
        original_s: float,
        span_s: tuple[float, float],
        uploader: str,
        licence: str,
        title: str,
    ) -> str:
        """Add a clip and return its clip_id.

        ``strong`` has (text, onset, offset) in seconds of the clip; ``span_s`` is the interval that the clip covers of
        the original.
        """
        name = f"{sound_id}.mp3"
        if wave is not None:
            peak = 0.95 * wave / (np.abs(wave).max() + 1e-9)
            write_audio(self.root / "audio" / name, peak, RATE, format="MP3", subtype="MPEG_LAYER_III")
        self.metadata[split].append(
            dict.fromkeys(TACOS_FIELDS, "")
            | {
                "filename": name,
                "keywords": title.replace(" ", ";"),
                "freesound_id": sound_id,
                "sound_link": f"https://freesound.org/people/{uploader}/sounds/{sound_id}/",
                "manufacturer": uploader,
                "license": licence,
                "title": title,
                "duration": f"{original_s:.3f}",
                "original_samplerate": "44100",
                "original_bitdepth": "16",
                "original_file_type": "wav",
                "start_time_s": f"{span_s[0]:.3f}",
                "end_time_s": f"{span_s[1]:.3f}",
                "original_filename": f"{title}.wav",
            }
        )
        self.weak.append({"filename": name, "text": weak})
        for text, onset, offset in strong:
            times = {"onset": f"{onset:.3f}", "offset": f"{offset:.3f}"}
            self.strong.append({"filename": name, "text": text} | times)
        return f"tacos/{split}/{sound_id}"

    def finish(self) -> None:
        mark = "utf-8-sig"
        everything = [*self.metadata["development"], *self.metadata["test"]]
        write_csv(self.root / "metadata.csv", TACOS_FIELDS, everything, mark)
        write_csv(self.root / "annotations_strong.csv", ["filename", "text", "onset", "offset"], self.strong, mark)
        write_csv(self.root / "annotations_weak.csv", ["filename", "text"], self.weak, mark)
        for split, rows in self.metadata.items():
            names = [{"filename": row["filename"]} for row in rows]
            write_csv(self.root / f"{split}_split.csv", ["filename"], names, mark)
