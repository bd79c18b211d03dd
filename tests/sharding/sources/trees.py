"""Small published trees, written by hand."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CLOTHO_CAPTIONS = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
CLOTHO_METADATA = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license"
AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption"
TACOS_METADATA = "filename,keywords,freesound_id,manufacturer,license,title,duration,start_time_s,end_time_s"


def table(
    path: Path, header: str, rows: Iterable[Sequence[object]], encoding: str = "utf-8", delimiter: str = ","
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def archive(path: Path, *members: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, b"sound")


def clotho_split(
    root: Path, split: str, names: Sequence[str], ids: Sequence[str] = (), spans: Sequence[str] = ()
) -> None:
    """Captions and metadata of one split; captions are ``<name> 1`` ... ``<name> 5``."""
    captions = [[name, *(f"{name} {k}" for k in range(1, 6))] for name in names]
    table(root / f"clotho_captions_{split}.csv", CLOTHO_CAPTIONS, captions)
    metadata = [
        [
            name,
            "rain;roof",
            ids[k] if k < len(ids) else 1000 + k,
            "link",
            spans[k] if k < len(spans) else "",
            "Zoë",
            "http://creativecommons.org/publicdomain/zero/1.0/",
        ]
        for k, name in enumerate(names)
    ]
    table(root / f"clotho_metadata_{split}.csv", CLOTHO_METADATA, metadata, "iso-8859-1")


def wavcaps_json(root: Path, source: str, name: str, items: Sequence[dict[str, Any]]) -> Path:
    path = root / f"json_files/{source}/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": list(items)}))
    return path


def by_id(rows: Any) -> dict[str, dict[str, Any]]:
    """Rows of a table by clip_id."""
    return {row["clip_id"]: row for row in rows.to_pylist()}


def texts(row: dict[str, Any]) -> list[str]:
    return [caption["text"] for caption in row["captions"]]
