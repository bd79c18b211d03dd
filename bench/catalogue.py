"""Measures how much time and memory it takes to catalogue all four published datasets.

    python -m bench.catalogue [--quick] [--metadata FOLDER]

Synthesises the four datasets' tables in their published form and size (Clotho 5,929 clips, AudioCaps 51,308,
WavCaps 403,050, TACOS 12,358) and folders that hold a part of the audio as empty files, then catalogues them in
one fresh process.  Where FOLDER (default: ``$EARSHOT_DATA/metadata``) has the real SoundBible table, WavCaps rows
take their texts from it.
The target: under a minute and under 2 GiB.

Where ``make bench-peers`` has been run, the readers of aac-datasets read the same tables and folders of Clotho,
AudioCaps and WavCaps for comparison.  They read tables and list folders as the catalogue does.  They join nothing,
check no interval, and refuse WavCaps unless every file is there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sharding.catalogue.table import build_catalogue
from sharding.dedup.identity import identity_matches

CLOTHO = {"development": 3839, "validation": 1045, "evaluation": 1045}
AUDIOCAPS = {"train": (49838, 1), "val": (495, 5), "test": (975, 5)}
WAVCAPS = {"FreeSound": 262300, "BBC_Sound_Effects": 31201, "SoundBible": 1232, "AudioSet_SL": 108317}
TABLES = {
    "FreeSound": "fsd_final",
    "BBC_Sound_Effects": "bbc_final",
    "SoundBible": "sb_final",
    "AudioSet_SL": "as_final",
}
TACOS = 12358
VIDEO = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
WORDS = ("dog", "rain", "roof", "car", "people", "talk", "wind", "distant", "loud", "while", "passes", "and")

PEERS = Path(__file__).parent.parent / ".venv-peers/bin/python"
PEER = """
import json, resource, sys, time, types
# torchaudio.backend: a module that it imports for a type hint, and that newer torchaudio lacks
common = types.ModuleType("torchaudio.backend.common")
common.AudioMetaData = object
sys.modules |= {"torchaudio.backend": types.ModuleType("torchaudio.backend"), common.__name__: common}
from aac_datasets.datasets.functional.audiocaps import load_audiocaps_dataset
from aac_datasets.datasets.functional.clotho import load_clotho_dataset
from aac_datasets.datasets.functional.wavcaps import WavCapsCard, load_wavcaps_dataset
WavCapsCard.EXPECTED_SIZES = json.loads(sys.argv[2])
root, seconds = sys.argv[1], {}
def timed(name, read, subsets, **more):
    start = time.process_time()
    kept = [read(root, subset, -1, **more) for subset in subsets]
    seconds[name] = time.process_time() - start
timed("clotho", load_clotho_dataset, ("dev", "val", "eval"))
timed("audiocaps", load_audiocaps_dataset, ("train", "val", "test"), audio_format="flac")
timed("wavcaps", load_wavcaps_dataset, ("audioset", "bbc", "freesound", "soundbible"))
print(json.dumps({**seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything")
    default = Path(os.environ.get("EARSHOT_DATA", "../shared/data")) / "metadata"
    parser.add_argument("--metadata", type=Path, default=default, help="published tables to take texts from")
    parser.add_argument("--roots", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.roots:
        print(json.dumps(measure(args.roots)))
        return
    with tempfile.TemporaryDirectory() as folder:
        roots = synthesise(Path(folder), 20 if args.quick else 1, args.metadata)
        ours = _measure(roots)
        apart = {name: _measure({name: roots[name]})["cpu_seconds"] for name in ("clotho", "audiocaps", "wavcaps")}
        theirs = _measure_peer(Path(folder), 20 if args.quick else 1)
    result = {**ours, "quick": args.quick, "clips_per_second": ours["clips"] / ours["seconds"]}
    rows = [
        ("clips catalogued", f"{ours['clips']:,}"),
        ("catalogue", f"{ours['seconds']:.1f} s ({ours['cpu_seconds']:.1f} s of processor time)"),
        ("pairs by id", f"{ours['match_seconds']:.1f} s ({ours['pairs']:,} pairs)"),
        ("peak memory", f"{ours['peak_gib']:.2f} GiB"),
    ]
    for name, value in rows:
        print(f"{name:36} {value:>40}")
    if theirs is None:
        print("aac-datasets: skipped, .venv-peers does not have it (make bench-peers)")
    else:
        for name, seconds in apart.items():
            times = f"{seconds:.2f} s and {theirs[name]:.2f} s of processor time"
            print(f"{name + ', here and aac-datasets':36} {times:>40}")
        result["aac_datasets_over_ours"] = {name: theirs[name] / seconds for name, seconds in apart.items()}
    print(json.dumps(result))


def _measure_peer(folder: Path, divisor: int) -> dict[str, float] | None:
    """Seconds of processor time of aac-datasets' readers; None if it is not installed."""
    asked = "import importlib.util, sys; sys.exit(importlib.util.find_spec('aac_datasets') is None)"
    if not PEERS.exists() or subprocess.run([PEERS, "-c", asked]).returncode:
        return None
    root = folder / "peer"
    for there, here in (
        ("CLOTHO_v2.1/clotho_audio_files", "clotho"),
        ("CLOTHO_v2.1/clotho_csv_files", "clotho"),
        ("AUDIOCAPS/audio_32000Hz", "audiocaps/audio"),
        ("AUDIOCAPS/csv_files_v1", "audiocaps"),
        ("WavCaps/json_files", "wavcaps/json_files"),
    ):
        (root / there).parent.mkdir(parents=True, exist_ok=True)
        (root / there).symlink_to(folder / here, target_is_directory=True)
    sizes = {source: count // divisor for source, count in WAVCAPS.items()}
    for source, count in sizes.items():
        _touch(root / "WavCaps/Audio" / source, (f"{number}.flac" for number in range(count)))
    done = subprocess.run(
        [PEERS, "-c", PEER, str(root), json.dumps(sizes)], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(roots: dict[str, str]) -> dict[str, Any]:
    """``measure`` in a process of its own, so that the peak of memory does not include the synthesis."""
    command = [sys.executable, "-m", "bench.catalogue", "--roots", json.dumps(roots)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(roots: dict[str, str]) -> dict[str, Any]:
    """Catalogue the datasets and match their identities: counts, seconds, and the peak of memory of this process."""
    start, start_cpu = time.perf_counter(), time.process_time()
    catalogue = build_catalogue(roots, follow_links=True)
    read, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    start = time.perf_counter()
    matches = identity_matches(catalogue.table)
    return {
        "clips": catalogue.table.num_rows,
        "seconds": read,
        "cpu_seconds": cpu,
        "match_seconds": time.perf_counter() - start,
        "pairs": matches.num_rows,
        "orphans": catalogue.orphans.num_rows,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def synthesise(folder: Path, divisor: int, metadata: Path) -> dict[str, str]:
    """Write the four datasets below ``folder`` at one ``divisor``-th of their size, and return their roots."""
    rng = random.Random(0)
    writers = {"clotho": _clotho, "audiocaps": _audiocaps, "tacos": _tacos}
    for name, write in writers.items():
        write(folder / name, divisor, rng)
    _wavcaps(folder / "wavcaps", divisor, rng, metadata / "wavcaps/sb_final.json")
    return {name: str(folder / name) for name in (*writers, "wavcaps")}


def _caption(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(5, 21)))


def _video(rng: random.Random) -> str:
    return "".join(rng.choices(VIDEO, k=11))


def _table(path: Path, header: str, rows: Iterable[Sequence[object]], newline: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=newline)
        writer.writerow(header.split(","))
        writer.writerows(rows)


def _touch(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def _clotho(root: Path, divisor: int, rng: random.Random) -> None:
    for split, count in CLOTHO.items():
        names = [f"{split} {k} take.{k % 7} &amp; rain.wav" for k in range(count // divisor)]
        captions = ([name, *(_caption(rng) for _ in range(5))] for name in names)
        _table(
            root / f"clotho_captions_{split}.csv",
            "file_name,caption_1,caption_2,caption_3,caption_4,caption_5",
            captions,
        )
        metadata = (
            [name, "rain;roof", rng.randrange(400000), "https://freesound.org/", "[44100, 900000]", "someone", "CC0"]
            for name in names
        )
        _table(
            root / f"clotho_metadata_{split}.csv",
            "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license",
            metadata,
        )
        _touch(root / split, names)


def _audiocaps(root: Path, divisor: int, rng: random.Random) -> None:
    for split, (count, captions) in AUDIOCAPS.items():
        clips = [(_video(rng), rng.randrange(60) * 10) for _ in range(count // divisor)]
        rows = (
            [number * 5 + k, video, start, _caption(rng)]
            for k in range(captions)
            for number, (video, start) in enumerate(clips)
        )
        _table(root / f"{split}.csv", "audiocap_id,youtube_id,start_time,caption", rows, "\r\n")
        _touch(root / "audio" / split, (f"{video}_{start}.flac" for video, start in clips[::2]))


def _tacos(root: Path, divisor: int, rng: random.Random) -> None:
    ids = [str(700000 + k) for k in range(TACOS // divisor)]
    _table(
        root / "metadata.csv",
        "filename,keywords,freesound_id,sound_link,manufacturer,license,title,duration,start_time_s,end_time_s",
        ([f"{i}.mp3", "rain;roof", i, "https://freesound.org/", "someone", "CC0", "rain", 60, 5.0, 25.0] for i in ids),
    )
    _table(
        root / "annotations_strong.csv",
        "filename,text,onset,offset",
        ([f"{i}.mp3", _caption(rng), k * 4, k * 4 + 3] for i in ids for k in range(4)),
    )
    _table(root / "annotations_weak.csv", "filename,text", ([f"{i}.mp3", _caption(rng)] for i in ids))
    for split, part in {"development": ids[::2], "test": ids[1::2]}.items():
        _table(root / f"{split}_split.csv", "filename", ([f"{i}.mp3"] for i in part))
    _touch(root / "audio", (f"{i}.mp3" for i in ids))


def _wavcaps(root: Path, divisor: int, rng: random.Random, real: Path) -> None:
    texts = json.loads(real.read_text())["data"] if real.exists() else None
    for source, count in WAVCAPS.items():
        rows = list(_wavcaps_rows(source, count // divisor, rng, texts))
        path = root / f"json_files/{source}/{TABLES[source]}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"num_captions_per_audio": 1, "data": rows}))
        _touch(root / "audio" / source, (f"{row['id'].removesuffix('.wav')}.flac" for row in rows[::5]))


def _wavcaps_rows(
    source: str, count: int, rng: random.Random, texts: list[dict[str, Any]] | None
) -> Iterator[dict[str, Any]]:
    for number in range(count):
        text = rng.choice(texts) if texts else {"caption": _caption(rng), "description": _caption(rng)}
        row: dict[str, Any] = {"caption": text["caption"], "audio": "wav_path", "duration": rng.uniform(1, 300)}
        if source == "AudioSet_SL":
            yield {"id": f"Y{_video(rng)}.wav", **row}
        elif source == "FreeSound":
            page = f"/people/someone/sounds/{number}/"
            yield {
                "id": str(number), "file_name": f"take {number}.wav", "href": page, "author": "someone", **row,
                "tags": rng.choices(WORDS, k=8), "description": text["description"] * 4,
                "download_link": f"https://freesound.org{page}download/{number}__someone__take-{number}.wav",
            }  # fmt: skip
        elif source == "BBC_Sound_Effects":
            yield {"id": f"NHU{number:08d}", "description": text["description"], "category": "['Nature']", **row}
        else:
            yield {"id": str(number), "title": "take", "description": text["description"], "author": "x", **row}


if __name__ == "__main__":
    main()
