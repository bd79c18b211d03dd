"""The tasks of mteb read published folders, and mteb measures what Earshot measures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sharding.common.errors import InputError
from tests.training.models.test_hub import write_run
from tests.training.small_runs import SOUNDS, sound
from training.evaluation.counting import rank_relevant
from training.evaluation.metrics import metrics
from training.models import hub
from training.models.formats.conversion import convert
from training.models.formats.proof import read_clips

mteb_tasks = pytest.importorskip("examples.mteb_tasks", reason="mteb is not installed (earshot[clients])")
CLIPS = 5


def write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clotho's evaluation split and TACOS' test split with five clips each, and a table of relevant clips."""
    root, draw = tmp_path_factory.mktemp("published"), np.random.default_rng(0)
    names = [f"clip {number}.wav" for number in range(CLIPS)]
    for folder in ("clotho/evaluation", "tacos/audio"):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            soundfile.write(root / folder / name, sound(number, 1.0 + number / 4, draw), 32000)
    captions = [[name] + [f"a {SOUNDS[number]}, take {take}" for take in range(5)] for number, name in enumerate(names)]
    columns = ["file_name"] + [f"caption_{number}" for number in range(1, 6)]
    write_table(root / "clotho" / "clotho_captions_evaluation.csv", columns, captions)
    facts = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
    rows = [[name, "", str(100 + number), "", "", "me", "CC0"] for number, name in enumerate(names)]
    write_table(root / "clotho" / "clotho_metadata_evaluation.csv", facts, rows)
    relevant = [[captions[0][1], str(names[:2])], [captions[3][2], str(names[3:4])], [captions[4][1], str(names[2:])]]
    write_table(root / "relevance.csv", ["query", "audio_filenames"], relevant)
    columns = ["filename", "freesound_id", "license", "start_time_s", "end_time_s"]
    write_table(root / "tacos" / "metadata.csv", columns, [[name, name[5], "CC0", "0.0", "1.0"] for name in names])
    strong = [[name, f"the {SOUNDS[number]}", "0.1", "0.5"] for number, name in enumerate(names)]
    write_table(root / "tacos" / "annotations_strong.csv", ["filename", "text", "onset", "offset"], strong)
    write_table(root / "tacos" / "test_split.csv", ["filename"], [[name] for name in names])
    return root


def test_mteb_measures_what_earshot_measures(published: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    export = hub.save(write_run(tmp_path / "run", []), tmp_path / "export")
    convert(export, "sentence-transformers", tmp_path / "model", read_clips(str(published / "clotho")))
    arguments = ["--clotho", str(published / "clotho"), "--relevance", str(published / "relevance.csv")]
    arguments += ["--tacos", str(published / "tacos"), "--trust-remote-code"]
    scores = mteb_tasks.main([str(tmp_path / "model"), *arguments])

    retriever = hub.load(export)
    model = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    tasks = mteb_tasks.clotho_tasks(str(published / "clotho"), published / "relevance.csv")
    for task in [*tasks, mteb_tasks.tacos_task(str(published / "tacos"))]:
        task.load_data()
        split = task.dataset["default"]["test"]
        vectors = [model.encode([row["audio"]])[0] for row in split["corpus"]]
        texts = retriever.encode_texts(split["queries"]["text"])[0]
        clips = split["corpus"]["id"]
        relevant = np.array([[clip in found for clip in clips] for found in split["relevant_docs"].values()])
        expected = metrics(rank_relevant((texts @ torch.tensor(np.array(vectors)).T).numpy(), relevant))
        found = scores[task.metadata.name]
        for own, theirs in (("R@1", "hit_rate_at_1"), ("mAP@10", "map_at_10"), ("mAP@16", "map_at_16")):
            assert found[theirs] == pytest.approx(expected[own], abs=2e-5)
    assert scores["ClothoMultiplePositivesT2A"]["main_score"] == scores["ClothoMultiplePositivesT2A"]["map_at_16"]


def test_a_missing_recording_and_an_unknown_clip_are_named(published: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "copy"))
    write_table(copy / "relevance.csv", ["query", "audio_filenames"], [["a", "['nowhere.wav']"]])
    with pytest.raises(InputError, match="not in the evaluation split"):
        mteb_tasks.clotho_tasks(str(copy / "clotho"), copy / "relevance.csv")
    (copy / "clotho" / "evaluation" / "clip 0.wav").unlink()
    with pytest.raises(InputError, match="recording of a clip is missing"):
        mteb_tasks.clotho_tasks(str(copy / "clotho"), None)


def test_the_published_tables_give_every_caption_and_every_query(shared_data: Path, tmp_path: Path) -> None:
    tables = tmp_path / "csv_files"  # as a well-known copy of Clotho has them
    tables.mkdir()
    shutil.copy(shared_data / "metadata/clotho/wavcaps_clotho_captions_test.csv", tables / "test.csv")
    (tmp_path / "evaluation").mkdir()
    with (tables / "test.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            (tmp_path / "evaluation" / row["file_name"]).touch()  # the tables are what is tested
    relevance = next((shared_data / "metadata").rglob("metadata_eval.csv"))
    every, several = mteb_tasks.clotho_tasks(str(tmp_path), relevance)
    assert (len(every._sounds), len(every._queries)) == (1045, 5225)
    pairs = sum(len(clips) for _, clips in several._queries)
    assert (len(several._queries), pairs) == (1037, 3116)
