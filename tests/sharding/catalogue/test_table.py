"""The catalogue over published tables, with the counts that their papers and releases give."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sharding.catalogue.shared_captions import plain_caption
from sharding.catalogue.table import Catalogue, build_catalogue, part_counts
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.dedup.identity import identity_matches, shared_sources
from sharding.schema import CATALOGUE, sample_key
from sharding.sources.base import ORPHANS
from sharding.sources.exclusion import list_report, read_exclusion_list
from tests.sharding.sources.trees import AUDIOCAPS, CLOTHO_METADATA, by_id, clotho_split, table, touch

CLOTHO_SPLITS = {"development": "train", "validation": "val", "evaluation": "test"}


@pytest.fixture(scope="session")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The real tables under their published names; metadata again in ISO-8859-1."""
    root, metadata = tmp_path_factory.mktemp("published"), shared_data / "metadata"
    for split, name in CLOTHO_SPLITS.items():
        (root / "clotho").mkdir(exist_ok=True)
        shutil.copy(
            metadata / f"clotho/wavcaps_clotho_captions_{name}.csv", root / f"clotho/clotho_captions_{split}.csv"
        )
        with (metadata / f"clotho/xieh97rel_{split}_audio_metadata.csv").open(newline="", encoding="utf-8") as file:
            rows = [[row[column] for column in CLOTHO_METADATA.split(",")] for row in csv.DictReader(file)]
        clean = [[cell.replace("\ufffd", "A") for cell in row] for row in rows]
        table(root / f"clotho/clotho_metadata_{split}.csv", CLOTHO_METADATA, clean, "iso-8859-1")
    for release, splits in {"dataset": ("train", "val", "test"), "dataset2.0": ("val", "test")}.items():
        for split in splits:
            target = root / f"audiocaps-{release}/{release}/{split}.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            version = "v1" if release == "dataset" else "v2"
            shutil.copy(metadata / f"audiocaps/{version}_{split}.csv", target)
    (root / "wavcaps/json_files/SoundBible").mkdir(parents=True)
    shutil.copy(metadata / "wavcaps/sb_final.json", root / "wavcaps/json_files/SoundBible/sb_final.json")
    return {
        "clotho": str(root / "clotho"),
        "audiocaps": str(root / "audiocaps-dataset"),
        "wavcaps": str(root / "wavcaps"),
    }


@pytest.fixture(scope="session")
def whole(published: dict[str, str]) -> Catalogue:
    return build_catalogue(published, {})


def test_the_published_counts(whole: Catalogue) -> None:
    counts = {
        f"{row['dataset']}/{row['part']}": (row["clips"], row["captions"], row["ids"])
        for row in part_counts(whole.table)
    }
    assert counts == {
        "clotho/development": (3839, 19195, 3831),
        "clotho/validation": (1045, 5225, 1039),
        "clotho/evaluation": (1045, 5225, 1040),
        "audiocaps/train": (49838, 49838, 49838),
        "audiocaps/val": (495, 2475, 495),
        "audiocaps/test": (975, 4875, 975),
        "wavcaps/SoundBible": (1232, 1232, 1232),
    }
    assert whole.table.schema == CATALOGUE and whole.orphans.schema == ORPHANS
    assert set(whole.table["problem"].to_pylist()) == {"missing"}
    assert whole.orphans.num_rows == 0


def test_published_oddities_survive(whole: Catalogue) -> None:
    clotho = whole.of("clotho")
    ids = clotho["clip_id"].to_pylist()
    stems = [clip_id.split("/", 2)[2] for clip_id in ids]
    assert len(set(ids)) == 5929 and len(set(stems)) == 5925
    assert sum("." in stem for stem in stems) == 307
    assert sum(stem.endswith(" ") for stem in stems) == 64
    assert sum(stem.startswith(" ") for stem in stems) == 3
    open_ended = pc.sum(pc.is_null(pc.struct_field(clotho["interval"], "end"))).as_py()
    unknown = pc.sum(pc.is_null(clotho["interval"])).as_py()
    assert open_ended == 1186 + 282 + 306 and unknown < 19
    hours = pc.sum(whole.of("wavcaps")["published_duration_s"]).as_py() / 3600
    assert hours == pytest.approx(4.49, abs=0.01)


def test_every_published_clip_has_a_key_of_its_own(whole: Catalogue) -> None:
    keys = {sample_key(clip_id) for clip_id in whole.table["clip_id"].to_pylist()}
    assert len(keys) == whole.table.num_rows and not any("." in key for key in keys)


def test_both_releases_of_audiocaps_are_the_same_clips(published: dict[str, str], tmp_path: Path) -> None:
    base = Path(published["audiocaps"]).parent
    for release in ("dataset", "dataset2.0"):
        shutil.copytree(base / f"audiocaps-{release}/{release}", tmp_path / release)
    both = build_catalogue({"audiocaps": str(tmp_path)}, {})
    assert both.table.num_rows == 49838 + 495 + 975
    test = {row["part"]: row["captions"] for row in part_counts(both.table)}["test"]
    assert 4875 < test <= 4875 + 130


def test_ids_show_the_leaks_inside_clotho(whole: Catalogue) -> None:
    splits = {
        source: sorted(clip_id.split("/")[1] for clip_id in clips)
        for source, clips in shared_sources(whole.of("clotho")).items()
    }
    assert splits == {
        "freesound:137692": ["development", "evaluation"],
        "freesound:66304": ["evaluation", "validation"],
        "freesound:86161": ["evaluation", "validation"],
        "freesound:86163": ["development", "validation"],
        "freesound:130603": ["development", "validation"],
        "freesound:130597": ["development", "development"],
    }
    assert identity_matches(whole.table).num_rows == 6
    said: dict[str, set[str]] = defaultdict(set)
    for row in whole.of("clotho").select(["clip_id", "captions"]).to_pylist():
        for caption in row["captions"]:
            said[plain_caption(caption["text"])].add(row["clip_id"])
    assert sum(len(clips) > 1 for clips in said.values()) == pytest.approx(33, abs=2)


def test_what_each_list_would_have_missed(whole: Catalogue, shared_data: Path) -> None:
    metadata = shared_data / "metadata"
    names = [
        "dcase2025/dcase2025_task6_excluded_freesound_ids.csv",
        "wavcaps/blacklist_exclude_all_ac.json",
        "wavcaps/blacklist_exclude_test_ac.json",
        "wavcaps/labbeti_blacklist_audiocaps.full.csv",
        "wavcaps/labbeti_blacklist_clotho.full.v2.csv",
    ]
    lists = [read_exclusion_list(str(metadata / name)) for name in names]
    assert (lists[0].entries, lists[0].unusable) == (3080, 1)
    assert lists[1].entries == 50725 + 5929 and lists[1].unusable == 19
    report = {(row["list"], row["dataset"], row["part"]): row for row in list_report(whole.table, lists)}

    def missed(name: str, dataset: str, part: str) -> tuple[int, int]:
        row = report[Path(name).name, dataset, part]
        return row["missed"], row["values"]

    assert missed(names[0], "clotho", "validation") == (1037, 1040)
    assert missed(names[0], "clotho", "evaluation") == (0, 1041)
    assert missed(names[0], "clotho", "development") == (3827, 3831)
    lacking = [missed(names[1], "audiocaps", part)[0] for part in ("train", "val", "test")]
    assert sum(lacking) == 583 and lacking[1:] == [1, 18]
    assert missed(names[1], "clotho", "development")[0] == 0
    assert all(missed(names[3], "audiocaps", part)[0] == 0 for part in ("train", "val", "test"))
    assert all(missed(names[4], "clotho", split)[0] == 0 for split in CLOTHO_SPLITS)
    assert sum(report["dcase2025_task6_excluded_freesound_ids.csv", "clotho", s]["no_id"] for s in CLOTHO_SPLITS) == 19


def test_real_recordings_in_the_published_layouts(shared_data: Path, tmp_path: Path) -> None:
    tool = shared_data.parent / "tools/real_trees.py"
    if not tool.exists():
        pytest.skip("no tool that lays out real recordings")
    done = subprocess.run(
        [sys.executable, str(tool), "--data", str(shared_data), "--out", str(tmp_path / "t"), "--clips", "12"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    truth = json.loads((tmp_path / "t/truth.json").read_text())
    names = ("clotho", "audiocaps", "wavcaps", "tacos")
    found = build_catalogue({name: str(tmp_path / "t" / name) for name in names}, {})
    rows = by_id(found.table)
    counts = {f"{row['dataset']}/{row['part']}": row["clips"] for row in part_counts(found.table)}
    counts["tacos"] = sum(count for name, count in counts.items() if name.startswith("tacos/"))
    assert all(counts[name] == count for name, count in truth["clips"].items())
    problems = {clip_id: row["problem"] for clip_id, row in rows.items() if row["problem"]}
    assert problems == {
        "wavcaps/AudioSet_SL/Ymissing0001": "missing",
        "wavcaps/FreeSound/../../../escape": "out_of_root",
    }
    assert found.orphans.num_rows == 0
    assert all((tmp_path / "t" / row["dataset"] / row["path"]).is_file() for row in rows.values() if row["path"])
    named = {
        clip_id.replace("/development/", "/").replace("/test/", "/"): clip_id for clip_id in rows if "tacos" in clip_id
    }
    matches = {(row["a"], row["b"]): row for row in identity_matches(found.table).to_pylist()}
    for planted in truth["same_recording"]:
        members = [named.get(member, member.removesuffix(".wav")) for member in planted["members"]]
        assert set(members) <= set(rows)
        match = matches.get((min(members), max(members)))
        if planted["kind"] == "same segment, id known":
            assert match and match["outcome"] == "undecided"
        elif planted["kind"] == "excerpt, id known":
            assert match and match["outcome"] == "same"
            assert match["offset_s"] == pytest.approx(-planted["start_s"], abs=1e-3)
        elif planted["kind"] == "overlapping excerpts, id known":
            assert match and match["overlap_s"] == pytest.approx(planted["overlap_s"], abs=2e-3)


def test_the_command_writes_tables_and_prints_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clotho_split(tmp_path / "c", "development", ["a.b.wav", "c.wav"])
    touch(tmp_path, "c/development/c.wav", "c/development/orphan.wav")
    table(tmp_path / "own/clips.csv", "path,captions", [["x.wav", "rain"]])
    arguments = ["catalogue", "--clotho", str(tmp_path / "c"), "--source", f"mine={tmp_path / 'own'}"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "clotho/development" in shown and "3839" in shown and "orphans.parquet" in shown
    rows = pq.read_table(tmp_path / "out/catalogue/clotho.parquet")
    assert rows.schema == CATALOGUE and rows["path"].to_pylist() == [None, "development/c.wav"]
    assert pq.read_table(tmp_path / "out/catalogue/mine.parquet").num_rows == 1
    assert pq.read_table(tmp_path / "out/orphans.parquet")["path"].to_pylist() == ["development/orphan.wav"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out.splitlines()[-1])["parts"]
    assert [(row["part"], row["clips"], row["audio"]) for row in parts] == [("development", 2, 1), ("all", 1, 0)]


def test_bad_input_ends_with_status_2_and_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path / "train.csv", AUDIOCAPS, [[1, "aaaaaaaaaaa", "soon", "x"]])
    assert main(["catalogue", "--audiocaps", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "train.csv, row 2" in capsys.readouterr().err
    assert main(["catalogue", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_names_of_own_sources_are_checked(tmp_path: Path) -> None:
    for name in ("clotho", "a/b", "../x"):
        with pytest.raises(InputError):
            build_catalogue({}, {name: str(tmp_path)})


def test_datasets_whose_shards_would_have_one_name_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "one/clips.csv", "path,captions,split", [["x.wav", "rain", "b-c"]])
    table(tmp_path / "two/clips.csv", "path,captions,split", [["y.wav", "wind", "c"]])
    with pytest.raises(InputError, match="shards of a-b/c and a/b-c would have one name"):
        build_catalogue({}, {"a": str(tmp_path / "one"), "a-b": str(tmp_path / "two")})


def test_the_folders_may_be_in_an_object_store(s3: str, tmp_path: Path) -> None:
    root = Storage(f"{s3}/{tmp_path.name}/ac")
    root.write("train.csv", AUDIOCAPS.encode() + b"\n1,aaaaaaaaaaa,0,rain\n2,bbbbbbbbbbb,0,wind\n")
    root.write("audio/train/aaaaaaaaaaa_0.flac", b"")
    found = build_catalogue({"audiocaps": root.url}, {})
    assert found.table["path"].to_pylist() == ["audio/train/aaaaaaaaaaa_0.flac", None]
