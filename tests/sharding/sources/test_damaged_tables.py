"""Whatever happens to the published tables: they are read, or refused with the file and a remedy.  Nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.catalogue.table import build_catalogue
from sharding.checks import check_table
from sharding.common.errors import InputError
from sharding.schema import CATALOGUE
from tests.sharding.sources.test_labelled import TREES
from tests.sharding.sources.trees import AUDIOCAPS, TACOS_METADATA, clotho_split, table, touch, wavcaps_json

HOSTILE = [
    b"",
    b"\0",
    b"\xff\xfe",
    b'"',
    b'""',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\r\n",
    b"[" * 3000,
    b"{" * 3000,
    b"1e999",
    b"nan",
    b"-1",
    b"9" * 5000,
    b"../../x",
    b"/etc/passwd",
    b"\x1b[31m",
    "\u202e".encode(),
    "é".encode("latin-1"),
    b"\\ud800",
    b"null",
    b"[]",
    b"x" * 140_000,
    b"=HYPERLINK(1)",
    b"caption_" + b"7" * 5000,
    b"1e12",
    b"freesound:",
    b"youtube:a@1e400",
]
TABLES = {
    "clotho": ["clotho_captions_development.csv", "clotho_metadata_development.csv"],
    "audiocaps": ["train.csv"],
    "wavcaps": ["json_files/FreeSound/fsd_final.json"],
    "tacos": ["metadata.csv", "annotations_strong.csv", "annotations_weak.csv", "test_split.csv"],
    "esc50": ["ESC-50-master/meta/esc50.csv"],
    "urbansound8k": ["metadata/UrbanSound8K.csv"],
    "fsd50k": ["FSD50K.ground_truth/dev.csv", "FSD50K.metadata/dev_clips_info_FSD50K.json"],
    "tut": [f"TUT-acoustic-scenes-2017-development/{name}.txt" for name in ("meta", "evaluation_setup/fold1_test")],
    "audioset": ["class_labels_indices.csv", "eval_segments.csv"],
    "vggsound": ["vggsound.csv"],
    "vggsounder": ["data/vggsounder.csv"],
    "epicsounds": ["EPIC_Sounds_train.csv", "EPIC_Sounds_validation.csv"],
    "hdepic": ["audio-annotations/HD-EPIC-Sounds.csv"],
    "autoacd": ["test.json", "train.csv"],
    "mine": ["clips.csv"],
    "lines": ["clips.jsonl"],
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    clotho_split(root / "clotho", "development", ["a.wav", "b c.wav"], ids=["7", "Not found"], spans=["[0, 44100]", ""])
    table(root / "audiocaps/train.csv", AUDIOCAPS, [[1, "aaaaaaaaaaa", 30, "rain"], [2, "bbbbbbbbbbb", 0, "a, b"]])
    wavcaps_json(root / "wavcaps", "FreeSound", "fsd_final", [
        {"id": "7", "caption": "rain", "duration": 9.5, "tags": ["wet"]}, {"id": "8", "caption": "wind", "duration": 1},
    ])  # fmt: skip
    rows = [
        ["7.mp3", "a;b", "7", "me", "CC0", "t", "30", "1.0", "9.0"],
        ["8.mp3", "", "8", "me", "CC0", "t", "9", "0", "9"],
    ]
    table(root / "tacos/metadata.csv", TACOS_METADATA, rows)
    table(root / "tacos/annotations_strong.csv", "filename,text,onset,offset", [["7.mp3", "rain", 0.5, 2.0]])
    table(root / "tacos/annotations_weak.csv", "filename,text", [["7.mp3", "it rains"], ["8.mp3", "wind"]])
    table(root / "tacos/test_split.csv", "filename", [["8.mp3"]])
    header = "path,captions,caption_2,identity,split,start_s,end_s,kind"
    table(root / "mine/clips.csv", header, [["a.wav", '["x"]', "z", "freesound:7", "train", "1", "2", "human"]] * 2)
    lines = [{"path": "a.wav", "captions": ["x"], "identity": "youtube:r1nicOVtvkQ@1", "start_s": 1, "keywords": ["k"]}]
    for name, make in TREES.items():
        (root / name).mkdir()
        make(root / name)
    (root / "lines").mkdir()
    (root / "lines/clips.jsonl").write_text("\n".join(map(json.dumps, lines * 2)))
    touch(root, "mine/a.wav", "lines/a.wav", "clotho/development/a.wav", "audiocaps/train/aaaaaaaaaaa_30.wav")
    return root


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, float, bytes]]]:
    """A dataset, one of its tables, and what is done to it: a kind of change, a place in it, and bytes."""
    name = draw(st.sampled_from(sorted(TABLES)))
    change = st.tuples(
        st.sampled_from(["insert", "replace", "cut", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=8)),
    )
    return name, draw(st.sampled_from(TABLES[name])), draw(st.lists(change, min_size=1, max_size=3))


def damaged(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, value in changes:
        at = int(place * len(data))
        if kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "replace":  # from one separator to the next: a whole cell
            start = max(data.rfind(mark, 0, at) for mark in (b",", b"\n", b":", b'"'))
            ends = [end for mark in (b",", b"\n", b"}") if (end := data.find(mark, at)) >= 0]
            data = data[: start + 1] + value + data[min(ends, default=len(data)) :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[:at] + data[at // 2 :]
    return data


@pytest.mark.slow
@settings(max_examples=600, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damages())
def test_a_damaged_table_is_read_or_refused_with_a_remedy(
    published: Path, tmp_path_factory: pytest.TempPathFactory, damage: tuple[str, str, list[tuple[str, float, bytes]]]
) -> None:
    name, file, changes = damage
    root = tmp_path_factory.mktemp("damaged") / name
    shutil.copytree(published / name, root)
    (root / file).write_bytes(damaged((root / file).read_bytes(), changes))
    roots, own = ({}, {name: str(root)}) if name in ("mine", "lines") else ({name: str(root)}, {})
    try:
        found = build_catalogue(roots, own)
    except InputError as error:
        assert error.remedy and (error.file or error.value)
        return
    finally:
        shutil.rmtree(root)
    check_table(found.table, CATALOGUE, "catalogue")
    ids = found.table["clip_id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert all(path is None or not path.startswith(("/", "..")) for path in found.table["path"].to_pylist())
