"""``earshot leaks``: which evaluation clips the training clips of a build hold, by sound and by id."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import soundfile as sf

from sharding.cli import main
from sharding.fates.benchmark_leaks import Held, held_clips
from sharding.schema import MATCHES
from tests.sharding.corpora import RATE, noise, tree


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set: a part of a training clip, sound of a protected clip alone, and sound of its own."""
    folder = tmp_path_factory.mktemp("benchmark")
    sounds = {"of_a1": noise(1, 3.0)[: 2 * RATE] * 0.3, "of_held": noise(200, 4.0)[: 2 * RATE], "new": noise(900, 2.0)}
    for name, wave in sounds.items():
        sf.write(folder / f"{name}.wav", wave, RATE, subtype="PCM_16")
    lines = ["path,split,captions", *(f"{name}.wav,query,a noise" for name in sounds), "absent.wav,query,a noise"]
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["leaks", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_set_outside_of_the_build_is_compared_by_its_sound(
    built: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(built)
    work = ["--work", str(tmp_path / "work"), "--csv", str(tmp_path / "held.csv")]
    arguments = [str(built), "--against", f"bench={benchmark}", "mine", *work]
    found = ran([*arguments, "--annotation", str(tmp_path / "card.yaml")], capsys)
    inside, outside = found["benchmarks"]
    assert outside["name"] == "bench/query" and (outside["clips"], outside["compared"]) == (4, 3)
    assert outside["held"] == {"sound": 1, "id": 0, "source": 0, "undecided": 0}
    assert inside["name"] == "mine/test" and inside["held"]["sound"] == 0
    (held,) = (each for each in found["clips"] if each["clip"].startswith("bench/"))
    assert held["clip"] == "bench/query/of_a1" and held["training_clip"] == "mine/train/a1"
    assert held["overlap_s"] == pytest.approx(2.0, abs=0.1)
    assert tree(built) == before
    with (tmp_path / "held.csv").open(newline="") as file:
        assert [row["clip"] for row in csv.DictReader(file)] == [each["clip"] for each in found["clips"]]
    rows = json.loads((tmp_path / "card.yaml").read_text())["evaluation_clips_in_training"]
    assert {row["name"]: row["held_by"]["sound"] for row in rows} == {"mine/test": 0, "bench/query": 1}
    shutil.rmtree(benchmark)  # the same command again reads nothing anew
    assert ran(arguments, capsys)["benchmarks"] == found["benchmarks"]


@pytest.mark.parametrize(
    ("against", "said"),
    [
        (["esc"], "contains no such dataset"),
        (["mine=DIR"], "write mine alone"),
        (["x=DIR", "x=DIR"], "each name once"),
        (["=DIR"], "each name once"),
    ],
)
def test_names_that_cannot_be_are_refused(
    against: list[str], said: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("DIR", str(tmp_path)) for word in against]
    assert main(["leaks", str(built), "--against", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_a_duplicate_says_by_its_id_counts_for_the_clip_that_is_written() -> None:
    """The table of evidence, from rows: ids of a dropped duplicate, and the strongest of several kinds."""
    catalogue = pa.table(
        {
            "clip_id": ["t/train/a", "t/train/b", "e/test/x", "e/test/y", "e/test/z"],
            "dataset": ["t", "t", "e", "e", "e"],
            "split": ["train", "train", "test", "test", "test"],
        }
    )
    fates = pa.table(
        {
            "clip_id": ["t/train/a", "t/train/b"],
            "fate": ["written", "duplicate"],
            "reason": ["kept", "same_interval"],
            "other": [None, "t/train/a"],
        }
    )
    rows = [
        {"a": "e/test/x", "b": "t/train/b", "method": "identity", "outcome": "same", "overlap_s": 3.0},
        {"a": "e/test/y", "b": "t/train/a", "method": "identity", "outcome": "undecided", "overlap_s": None},
        {"a": "e/test/y", "b": "t/train/a", "method": "waveform", "outcome": "same", "overlap_s": 1.5},
        {"a": "e/test/z", "b": "t/train/a", "method": "waveform", "outcome": "different", "overlap_s": None},
    ]
    matches = pa.Table.from_pylist([row | {"offset_s": None, "score": None} for row in rows], schema=MATCHES)
    held = held_clips(catalogue, fates, matches, [("e", "test")], frozenset())
    assert held == [Held("e/test/x", "id", "t/train/a", 0.0), Held("e/test/y", "sound", "t/train/a", 1.5)]
    assert held_clips(catalogue, fates, matches, [("e", "test")], {("t", "train")}) == []


def test_a_trimmed_clip_does_not_hold_the_protected_sound_that_was_cut_from_it() -> None:
    """Sound of the build's own protected clips is cut; of other sets, and where no place is known, the clip counts."""
    ids = ["t/train/cut", "t/train/copy", "t/train/whole", "t/test/p", "t/test/q", "e/test/x"]
    catalogue = pa.table(
        {"clip_id": ids, "dataset": [i.split("/")[0] for i in ids], "split": [i.split("/")[1] for i in ids]}
    )
    fates = pa.table(
        {
            "clip_id": ids[:5],
            "fate": ["written", "duplicate", "written", "written", "written"],
            "reason": ["trimmed", "same_interval", "kept", "protected", "protected"],
            "other": ["t/test/p", "t/train/cut", None, None, None],
        }
    )

    def row(a: str, b: str, method: str = "waveform", outcome: str = "same") -> dict[str, Any]:
        return {"a": a, "b": b, "method": method, "outcome": outcome, "overlap_s": 2.0, "offset_s": 0.0, "score": None}

    matches = [row("t/test/p", "t/train/cut"), row("t/test/p", "t/train/copy"), row("e/test/x", "t/train/cut")]
    matches += [row("t/test/q", "t/train/cut", outcome="undecided")]
    table = pa.Table.from_pylist(matches, schema=MATCHES)
    held = held_clips(catalogue, fates, table, [("t", "test"), ("e", "test")], {("t", "test")})
    assert held == [
        Held("e/test/x", "sound", "t/train/cut", 2.0),
        Held("t/test/q", "undecided", "t/train/cut", 0.0),
    ]
    known = pa.Table.from_pylist([*matches, row("t/test/p", "t/train/whole")], schema=MATCHES)
    held = held_clips(catalogue, fates, known, [("t", "test")], {("t", "test")})
    assert Held("t/test/p", "sound", "t/train/whole", 2.0) in held
