"""Datasets with labels in place of captions, laid out as published."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from sharding.sources import (
    DATASETS,
    audioset,
    autoacd,
    epicsounds,
    esc50,
    fsd50k,
    hdepic,
    tut,
    urbansound8k,
    vggsound,
    vggsounder,
)
from sharding.sources.base import DatasetTables
from tests.sharding.sounds import noise
from tests.sharding.sources.trees import archive, by_id, table, texts, touch

LABELLED = (
    *(
        "esc50",
        "urbansound8k",
        "fsd50k",
        "tut",
        "audioset",
        "vggsound",
        "vggsounder",
        "epicsounds",
        "hdepic",
        "autoacd",
    ),
)


def labels(row: dict[str, Any]) -> list[str]:
    assert {caption["kind"] for caption in row["captions"]} <= {"label"}
    return [caption["text"] for caption in row["captions"]]


def an_esc50(root: Path) -> DatasetTables:
    header = "filename,fold,target,category,esc10,src_file,take"
    rows = [["1-100032-A-0.wav", 1, 0, "dog", True, 100032, "A"], ["5-9-B-20.wav", 5, 20, "crying_baby", False, 9, "B"]]
    table(root / "ESC-50-master/meta/esc50.csv", header, rows)
    touch(root, "ESC-50-master/audio/1-100032-A-0.wav", "ESC-50-master/audio/left-over.wav")
    return esc50.read(Storage(root))


def an_urbansound8k(root: Path) -> DatasetTables:
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = [
        ["100032-3-0-0.wav", 100032, 0.0, 0.317551, 1, 5, 3, "dog_bark"],
        ["7-8-0-1.wav", 7, 4.5, 8.5, 2, 10, 8, "siren"],
    ]
    table(root / "metadata/UrbanSound8K.csv", header, rows)
    touch(root, "audio/fold5/100032-3-0-0.wav", "audio/fold10/7-8-0-1.wav")
    return urbansound8k.read(Storage(root))


def an_fsd50k(root: Path) -> DatasetTables:
    dev = [
        [64760, "Electric_guitar,Guitar,Music", "/m/02sgy,/m/0342h,/m/04rlf", "train"],
        [16399, "Rain", "/m/06mb1", "val"],
    ]
    table(root / "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split", dev)
    table(root / "FSD50K.ground_truth/eval.csv", "fname,labels,mids", [[37199, "Thunder", "/m/0ngt1"]])
    about = {"64760": {"title": "riff", "tags": ["guitar"], "license": "CC0", "uploader": "ann", "description": "x"}}
    (root / "FSD50K.metadata").mkdir()
    (root / "FSD50K.metadata/dev_clips_info_FSD50K.json").write_text(json.dumps(about))
    touch(root, "FSD50K.dev_audio/64760.wav", "FSD50K.eval_audio/37199.wav")
    return fsd50k.read(Storage(root))


def a_tut(root: Path) -> DatasetTables:
    folder, setup = root / "TUT-acoustic-scenes-2017-development", "evaluation_setup"
    (folder / setup).mkdir(parents=True)
    (folder / "meta.txt").write_text("audio/b020_90_100.wav\tbeach\tb020\naudio/b021_0_10.wav\tcafe/restaurant\tb021\n")
    (folder / setup / "fold1_test.txt").write_text("audio/b020_90_100.wav\n")
    (folder / setup / "fold3_test.txt").write_text("audio/b021_0_10.wav\n")
    (folder / setup / "fold1_train.txt").write_text("audio/b021_0_10.wav\tcafe/restaurant\n")
    evaluation = root / "TUT-acoustic-scenes-2017-evaluation"
    evaluation.mkdir()
    (evaluation / "meta.txt").write_text("audio/1.wav\tcity_center\n")
    touch(folder, "audio/b020_90_100.wav")
    archive(root / "evaluation.audio.1.zip", "TUT-acoustic-scenes-2017-evaluation/audio/1.wav")
    return tut.read(Storage(root))


def an_audioset(root: Path) -> DatasetTables:
    table(
        root / "class_labels_indices.csv",
        "index,mid,display_name",
        [[0, "/m/09x0r", "Speech"], [1, "/m/0bt9lr", "Dog"]],
    )
    remarks = (
        "# Segments csv created Sun Mar  5 2017\n# num_ytids=1\n# YTID, start_seconds, end_seconds, positive_labels\n"
    )
    (root / "eval_segments.csv").write_text(remarks + '-1LrH01Ei1w, 30.000, 40.000, "/m/0bt9lr,/m/09x0r"\n')
    (root / "balanced_train_segments.csv").write_text(remarks + '--4gqARaEJE, 0.000, 10.000, "/m/0bt9lr"\n')
    touch(root, "eval_segments/Y-1LrH01Ei1w.wav", "balanced/--4gqARaEJE_0.flac")
    return audioset.read(Storage(root))


def a_vggsound(root: Path) -> DatasetTables:
    (root / "vggsound.csv").write_text(
        '---g-f_I2yQ,1,"male speech, man speaking",test\n--0PQM4-hqg,30,waterfall burbling,train\n'
    )
    touch(root, "video/---g-f_I2yQ_000001.mp4", "audio/--0PQM4-hqg.wav")
    return vggsound.read(Storage(root))


VGGSOUNDER = "video_id,label,modality,background_music,static_image,voice_over"
EPIC = "video_id,start_timestamp,stop_timestamp,class"


def a_vggsounder(root: Path) -> DatasetTables:
    rows = [
        ["---g-f_I2yQ_000001", "male singing", "A", "True", "False", "False"],
        ["---g-f_I2yQ_000001", "people crowd", "AV", "True", "False", "False"],
        ["---g-f_I2yQ_000001", "playing timpani", "V", "True", "False", "False"],
        ["--0PQM4-hqg_000030", "waterfall burbling", "V", "False", "True", "False"],
    ]
    table(root / "data/vggsounder.csv", VGGSOUNDER, rows)
    touch(root, "audio/---g-f_I2yQ_000001.wav", "audio/--0PQM4-hqg_30.flac")
    return vggsounder.read(Storage(root))


def an_epicsounds(root: Path) -> DatasetTables:
    header = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,description,class,class_id"
    sounds = [
        ["P01_01_0", "P01", "P01_01", "00:00:02.466", "00:00:05.315", "paper rustle", "rustle", 3],
        ["P01_01_1", "P01", "P01_01", "01:00:02", "01:00:03.5", "Water", "water", 4],
        ["P02_07_0", "P02", "P02_07", "00:00:00.000", "00:00:01.000", "", "metal-only collision", 5],
    ]
    table(root / "EPIC_Sounds_train.csv", header, sounds)
    table(root / "EPIC_Sounds_validation.csv", header, [["P03_02_0", "P03", "P03_02", *sounds[0][3:]]])
    touch(root, "P01/audio/P01_01.wav", "P03_02.MP4")
    return epicsounds.read(Storage(root))


def an_hdepic(root: Path) -> DatasetTables:
    header = "participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,class,class_id"
    row = ["P01", "P01-20240202-110250", "00:00:00.476", "00:00:02.520", 22848, 120960, "rustle", 4]
    table(root / "audio-annotations/HD-EPIC-Sounds.csv", header, [row])
    touch(root, "Videos/P01/P01-20240202-110250.mp4")
    return hdepic.read(Storage(root))


def an_autoacd(root: Path) -> DatasetTables:
    items = [
        {"id": "VGGSound/audio/Ch_RpcvHirQ_000184.flac", "caption": ["Several people play badminton in the gym."]},
        {"id": "AudioSet/audio/S6CoSybkYUQ.flac", "caption": "The crowd roars as music plays."},
    ]
    (root / "test.json").write_text(json.dumps(items, indent=1))
    rows = [["--0PQM4-hqg_000030", "A waterfall, loud."], ["-1LrH01Ei1w", "A dog."], ["-1LrH01Ei1w", "A bark."]]
    table(root / "train.csv", "youtube_id,caption", rows)
    touch(root, "VGGSound/audio/Ch_RpcvHirQ_000184.flac", "elsewhere/S6CoSybkYUQ.wav", "audioset/Y-1LrH01Ei1w.wav")
    return autoacd.read(Storage(root))


TREES: dict[str, Callable[[Path], DatasetTables]] = {
    "esc50": an_esc50, "urbansound8k": an_urbansound8k, "fsd50k": an_fsd50k, "tut": a_tut, "audioset": an_audioset,
    "vggsound": a_vggsound, "vggsounder": a_vggsounder, "epicsounds": an_epicsounds, "hdepic": an_hdepic,
    "autoacd": an_autoacd,
}  # fmt: skip


def test_esc50(tmp_path: Path) -> None:
    found = an_esc50(tmp_path)
    rows = by_id(found.catalogue)
    assert list(rows) == ["esc50/fold1/1-100032-A-0", "esc50/fold5/5-9-B-20"]
    dog, baby = rows.values()
    assert labels(dog) == ["dog"] and labels(baby) == ["crying baby"]
    assert dog["identity"] == "freesound:100032" and dog["interval"] is None and dog["published_duration_s"] == 5
    assert dog["path"] == "ESC-50-master/audio/1-100032-A-0.wav" and baby["problem"] == "missing"
    assert found.orphans["path"].to_pylist() == ["ESC-50-master/audio/left-over.wav"]


def test_urbansound8k(tmp_path: Path) -> None:
    rows = by_id(an_urbansound8k(tmp_path).catalogue)
    siren = rows["urbansound8k/fold10/7-8-0-1"]
    assert labels(siren) == ["siren"] and siren["path"] == "audio/fold10/7-8-0-1.wav"
    assert siren["interval"] == {"start": 4.5, "end": 8.5} and siren["published_duration_s"] == 4


def test_fsd50k(tmp_path: Path) -> None:
    rows = by_id(an_fsd50k(tmp_path).catalogue)
    assert list(rows) == ["fsd50k/train/64760", "fsd50k/val/16399", "fsd50k/eval/37199"]
    riff = rows["fsd50k/train/64760"]
    assert labels(riff) == ["Electric guitar", "Guitar", "Music"]
    assert (riff["title"], riff["licence"], riff["uploader"], riff["keywords"]) == ("riff", "CC0", "ann", ["guitar"])
    assert riff["identity"] == "freesound:64760" and riff["interval"] == {"start": 0.0, "end": None}


def test_tut(tmp_path: Path) -> None:
    rows = by_id(a_tut(tmp_path).catalogue)
    assert list(rows) == ["tut/fold1/b020_90_100", "tut/fold3/b021_0_10", "tut/evaluation/1"]
    beach, cafe, city = rows.values()
    assert labels(beach) == ["beach"] and labels(cafe) == ["cafe/restaurant"] and labels(city) == ["city center"]
    assert beach["identity"] == "tut:b020" and beach["interval"] == {"start": 90.0, "end": 100.0}
    assert city["path"] == "evaluation.audio.1.zip!/TUT-acoustic-scenes-2017-evaluation/audio/1.wav"
    assert cafe["problem"] == "missing"


def test_audioset(tmp_path: Path) -> None:
    found = an_audioset(tmp_path)
    rows = by_id(found.catalogue)
    assert list(rows) == ["audioset/balanced_train/--4gqARaEJE_0", "audioset/eval/-1LrH01Ei1w_30"]
    dog, both = rows.values()
    assert labels(both) == ["Dog", "Speech"] and both["identity"] == "youtube:-1LrH01Ei1w@30.000"
    assert dog["path"] == "balanced/--4gqARaEJE_0.flac" and both["path"] == "eval_segments/Y-1LrH01Ei1w.wav"
    assert found.notes == ("unbalanced_train_segments.csv is absent",)


def test_vggsound(tmp_path: Path) -> None:
    rows = by_id(a_vggsound(tmp_path).catalogue)
    speech, water = rows["vggsound/test/---g-f_I2yQ_1"], rows["vggsound/train/--0PQM4-hqg_30"]
    assert labels(speech) == ["male speech, man speaking"] and speech["path"] == "video/---g-f_I2yQ_000001.mp4"
    assert water["path"] == "audio/--0PQM4-hqg.wav" and water["interval"] == {"start": 30.0, "end": 40.0}


def test_vggsounder_keeps_what_is_heard(tmp_path: Path) -> None:
    rows = by_id(a_vggsounder(tmp_path).catalogue)
    singing, water = rows["vggsounder/test/---g-f_I2yQ_000001"], rows["vggsounder/test/--0PQM4-hqg_000030"]
    assert labels(singing) == ["male singing", "people crowd"] and singing["keywords"] == ["background music"]
    assert singing["identity"] == "youtube:---g-f_I2yQ@1.000" and singing["interval"] == {"start": 1.0, "end": 11.0}
    assert labels(water) == [] and water["path"] == "audio/--0PQM4-hqg_30.flac" and "not heard" in water["notes"][0]


def test_epicsounds_has_times_in_whole_videos(tmp_path: Path) -> None:
    found = an_epicsounds(tmp_path)
    rows = by_id(found.catalogue)
    assert list(rows) == ["epicsounds/train/P01_01", "epicsounds/train/P02_07", "epicsounds/validation/P03_02"]
    first = rows["epicsounds/train/P01_01"]
    assert [(each["text"], each["kind"], each["onset"], each["offset"]) for each in first["captions"]] == [
        ("rustle", "label", 2.466, 5.315),
        ("paper rustle", "human", 2.466, 5.315),
        ("water", "label", 3602.0, 3603.5),
    ]
    assert first["identity"] == "epic-kitchens:P01_01" and first["path"] == "P01/audio/P01_01.wav"
    assert rows["epicsounds/train/P02_07"]["problem"] == "missing"
    assert rows["epicsounds/validation/P03_02"]["path"] == "P03_02.MP4"


def test_hdepic(tmp_path: Path) -> None:
    (row,) = by_id(an_hdepic(tmp_path).catalogue).values()
    assert row["clip_id"] == "hdepic/test/P01-20240202-110250" and labels(row) == ["rustle"]
    assert row["captions"][0]["onset"] == 0.476 and row["path"] == "Videos/P01/P01-20240202-110250.mp4"


def test_autoacd(tmp_path: Path) -> None:
    found = an_autoacd(tmp_path)
    waterfall, dog, badminton, crowd = by_id(found.catalogue).values()
    assert (waterfall["clip_id"], waterfall["path"]) == ("autoacd/train/--0PQM4-hqg_000030", None)
    assert waterfall["identity"] == "youtube:--0PQM4-hqg@30.000"
    assert texts(dog) == ["A dog.", "A bark."] and dog["path"] == "audioset/Y-1LrH01Ei1w.wav"
    assert badminton["identity"] == "youtube:Ch_RpcvHirQ@184.000" and crowd["identity"] == "youtube:S6CoSybkYUQ"
    assert [each["kind"] for each in crowd["captions"]] == ["machine"]
    assert crowd["path"] == "elsewhere/S6CoSybkYUQ.wav" and "val.csv and val.json are absent" in found.notes


def test_two_tables_of_one_split_and_rows_without_an_id_are_refused(tmp_path: Path) -> None:
    an_autoacd(tmp_path)
    table(tmp_path / "test.csv", "youtube_id,caption", [["S6CoSybkYUQ", "A crowd."]])
    with pytest.raises(InputError, match=r"two tables of one split: test\.csv and test\.json"):
        autoacd.read(Storage(tmp_path))
    (tmp_path / "test.json").unlink()
    table(tmp_path / "test.csv", "youtube_id,caption", [["S6CoSybkYUQ", "A crowd."], [" ", "A dog."]])
    with pytest.raises(InputError, match="the row has no youtube_id") as refusal:
        autoacd.read(Storage(tmp_path))
    assert refusal.value.row == 3


@pytest.mark.parametrize(
    ("item", "row"), [("5", 3), ('{"id": "a.wav", "caption": [7]}', 3), ('{"id": " ", "caption": "x"}', 3),
                      ('{"id": "b/S6CoSybkYUQ.wav", "caption": "again"}', 3)],
)  # fmt: skip
def test_a_bad_item_of_autoacd_is_named(item: str, row: int, tmp_path: Path) -> None:
    an_autoacd(tmp_path)
    text = (tmp_path / "test.json").read_text()
    (tmp_path / "test.json").write_text(f"{text.rstrip().removesuffix(']')}, {item}]")
    with pytest.raises(InputError) as refusal:
        autoacd.read(Storage(tmp_path))
    assert refusal.value.row == row and str(refusal.value.file).endswith("test.json") and refusal.value.remedy


@pytest.mark.parametrize("name", LABELLED)
def test_test_folds_and_splits_are_protected(name: str, tmp_path: Path) -> None:
    """In cross-validation each fold is the test set once, so all of them are."""
    dataset = DATASETS[name]
    splits = set(TREES[name](tmp_path).catalogue["split"].to_pylist())
    assert splits <= set(dataset.splits)
    held_out = {
        split for split in splits if "fold" in split or split in ("eval", "val", "validation", "test", "evaluation")
    }
    assert held_out and held_out == splits & set(dataset.protected)


@pytest.mark.parametrize("name", LABELLED)
def test_an_empty_folder_is_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="into it"):
        DATASETS[name].read(Storage(tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("esc50", "ESC-50-master/meta/esc50.csv", "a.wav,6,0,dog,True,1,A"),
        ("urbansound8k", "metadata/UrbanSound8K.csv", "a.wav,1,0,1,1,11,3,dog_bark"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", "5,Rain,/m/06mb1,test"),
        ("tut", "TUT-acoustic-scenes-2017-development/meta.txt", "audio/a.wav beach"),
        ("audioset", "eval_segments.csv", 'x, 10.000, 0.000, "/m/0bt9lr"'),
        ("audioset", "eval_segments.csv", 'x, 0.000, 10.000, "/m/unknown"'),
        ("vggsound", "vggsound.csv", "x,later,rain,train"),
        ("vggsounder", "data/vggsounder.csv", "x_000001,rain,B,False,False,False"),
        ("vggsounder", "data/vggsounder.csv", "without a start,rain,A,False,False,False"),
        ("epicsounds", "EPIC_Sounds_train.csv", "P_0,P,P_1,00:00:03.0,00:00:02.0,words,rustle,3"),
        ("epicsounds", "EPIC_Sounds_train.csv", "P_0,P,P_1,2.5,00:00:02.0,words,rustle,3"),
        ("hdepic", "audio-annotations/HD-EPIC-Sounds.csv", "P,P-1,00:00:00.1,00:00:00.2,1,2,,3"),
    ],
)
def test_a_bad_row_is_named(name: str, file: str, line: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    rows = (tmp_path / file).read_text().count("\n")
    with (tmp_path / file).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(InputError) as refusal:
        DATASETS[name].read(Storage(tmp_path))
    assert refusal.value.row == rows + 1 and str(refusal.value.file).endswith(file)


@pytest.mark.parametrize("name", LABELLED)
def test_files_outside_of_the_folder_are_never_named(name: str, tmp_path: Path) -> None:
    climbing = {
        "esc50": ("ESC-50-master/meta/esc50.csv", "../../x.wav,1,0,dog,True,1,A"),
        "urbansound8k": ("metadata/UrbanSound8K.csv", "../../x.wav,7,0,1,1,1,3,dog_bark"),
        "fsd50k": ("FSD50K.ground_truth/dev.csv", "../../x,Rain,/m/06mb1,train"),
        "tut": ("TUT-acoustic-scenes-2017-development/meta.txt", "../../x.wav\tbeach"),
        "audioset": ("eval_segments.csv", '../../x, 0.000, 10.000, "/m/0bt9lr"'),
        "vggsound": ("vggsound.csv", "../../x,1,rain,train"),
        "vggsounder": ("data/vggsounder.csv", "../../x_000001,rain,A,False,False,False"),
        "epicsounds": ("EPIC_Sounds_train.csv", "x,P01,../../x,00:00:00.1,00:00:00.2,words,rustle,3"),
        "hdepic": ("audio-annotations/HD-EPIC-Sounds.csv", "P01,../../x,00:00:00.1,00:00:00.2,1,2,rustle,3"),
        "autoacd": ("test.json", ',{"id": "../../x.wav", "caption": "rain"}]'),
    }
    TREES[name](tmp_path)
    file, line = climbing[name]
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text((text.rstrip().removesuffix("]") if file.endswith(".json") else text) + line + "\n")
    problems = DATASETS[name].read(Storage(tmp_path)).catalogue["problem"].to_pylist()
    assert problems.count("out_of_root") == 1


def test_labels_and_folds_travel_through_the_shards(tmp_path: Path) -> None:
    an_esc50(tmp_path / "esc50")
    for number, stem in enumerate(("1-100032-A-0", "5-9-B-20")):
        audio = tmp_path / f"esc50/ESC-50-master/audio/{stem}.wav"
        soundfile.write(audio, noise(5.0, seed=number)[:, 0] * 0.1, 16000)
    build(BuildSettings(roots={"esc50": str(tmp_path / "esc50")}), str(tmp_path / "out"), LocalRunner(1))
    samples = Manifest.open(tmp_path / "out").table.to_pylist()
    assert {sample["split"]: labels(sample) for sample in samples} == {
        "fold1": ["dog"],
        "fold5": ["crying baby"],
    }


def test_the_real_esc50_recordings(tmp_path: Path, shared_data: Path) -> None:
    """Its published table, made again from what is known of each recording."""
    with (shared_data / "audio/clips.csv").open(newline="") as file:
        known = [row for row in csv.DictReader(file) if row["set"] == "esc50_16k"]
    stems = [Path(row["path"]).stem for row in known]
    names = [row["label_or_caption"].partition(" | ")[0] for row in known]
    rows = [
        [f"{stem}.wav", row["fold"], stem.rpartition("-")[2], name, False, row["freesound_id"], stem.split("-")[2]]
        for stem, row, name in zip(stems, known, names, strict=True)
    ]
    table(tmp_path / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", rows)
    (tmp_path / "audio").symlink_to(shared_data / "audio/esc50_16k/audio")
    found = esc50.read(Storage(tmp_path))
    assert found.catalogue.num_rows == len(rows) and found.catalogue["path"].null_count == 0
    assert {stem[0] for stem in stems} == {split[-1] for split in found.catalogue["split"].to_pylist()}
