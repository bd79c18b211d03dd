"""Scores on disk: written in parts, continued where they were killed, and refused where they are not what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.training.evaluation.score_folders import noisy, questions, write_matrix
from tests.training.evaluation.test_run import ATTENTION, RELEVANCE, SPLIT
from tests.training.small_runs import commit, small_recipe, write_sounds
from training import cli
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import side_encoder
from training.evaluation.figures import Questions
from training.evaluation.relevance import open_queries
from training.evaluation.run import EvaluationSettings, evaluate
from training.evaluation.scores import files, writing
from training.evaluation.scores.files import ScoreFile
from training.evaluation.scores.writing import ScoringSettings, write_scores
from training.models.retriever import Retriever
from training.tasks.retrieval import assemble


def retriever(*overrides: str) -> Retriever:
    recipe = small_recipe(overrides)
    model, loss = assemble(recipe, ["a low hum", "a whistle", "some hiss"])
    return Retriever(model.eval(), loss.eval(), recipe)


def write(build: Path, out: Path, *overrides: str, **settings: Any) -> dict[str, Any]:
    return write_scores(
        retriever(*overrides), Manifest.open(build), ScoringSettings("m", SPLIT, 4, **settings), str(out)
    )


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 9 * 4 * 5)  # five rows of nine clips, of which four are a batch
    monkeypatch.setattr(writing, "BLOCK", 2)


@pytest.mark.parametrize("head", [[], ATTENTION], ids=["dual", "attention"])
def test_figures_of_scores_are_those_of_the_model(
    build: Path, tmp_path: Path, head: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(build, tmp_path / "s", *head, relevance=RELEVANCE)["parts"] == 5
    file = tmp_path / "relevance.csv"
    rows = [f'{query},"{list(clips)}"\n' for query, clips in RELEVANCE.items()]
    file.write_text("query,audio_filenames\n" + "".join(rows))
    model = retriever(*head)
    encoder = side_encoder(model.model, model.recipe.data, model.device)
    live = evaluate(encoder, Manifest.open(build), EvaluationSettings(SPLIT, 4, relevance=RELEVANCE), LocalGroup())
    arguments = ["evaluate", str(tmp_path / "s"), "--relevance", str(file)]
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == live
    assert cli.main(arguments) == 0
    assert "the most that is possible" in capsys.readouterr().out  # several clips have the caption of their kind


def test_a_killed_run_continues_and_ends_with_the_same_bytes(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(build, tmp_path / "whole")
    real = files.ScoreWriter.write
    for dies_at in (0, 2):

        def die(self: Any, part: int, scores: Any, dies_at: int = dies_at) -> None:
            if part == dies_at:
                raise KeyboardInterrupt
            real(self, part, scores)

        monkeypatch.setattr(files.ScoreWriter, "write", die)
        with pytest.raises(KeyboardInterrupt):
            write(build, tmp_path / "killed")
        with pytest.raises(InputError, match="not finished"):
            ScoreFile.open(tmp_path / "killed")
    monkeypatch.setattr(files.ScoreWriter, "write", real)
    monkeypatch.setattr(writing, "encode_clips", None)  # they were encoded before it was killed
    assert write(build, tmp_path / "killed")["written"] == 3
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("whole", "killed"))
    assert one == other
    assert write(build, tmp_path / "killed")["written"] == 0


def test_other_scores_in_the_same_folder_are_refused(build: Path, tmp_path: Path) -> None:
    write(build, tmp_path / "s")
    with pytest.raises(InputError, match="fingerprint differ"):
        write(build, tmp_path / "s", "seed=1")
    write_sounds(tmp_path / "other", clips=2, held_out=4)
    with pytest.raises(InputError, match="other scores"):
        write(tmp_path / "other", tmp_path / "s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(InputError, match="something else"):
        write(build, tmp_path / "mine")


def test_damage_is_found(build: Path, tmp_path: Path) -> None:
    write(build, tmp_path / "s")
    part = "part-000001.safetensors"
    whole = (tmp_path / "s" / part).read_bytes()
    for number in (3, len(whole) // 3, len(whole) - 2):
        copy = Path(shutil.copytree(tmp_path / "s", tmp_path / f"copy{number}"))
        changed = bytearray(whole)
        changed[number] ^= 0x40
        (copy / part).write_bytes(bytes(changed))
        with pytest.raises(InputError, match="part-000001"):
            list(ScoreFile.open(copy).blocks())
    (tmp_path / "s" / part).write_bytes(whole[:-4])
    with pytest.raises(InputError, match="part-000001"):
        ScoreFile.open(tmp_path / "s").mapped()
    (tmp_path / "s" / part).unlink()
    with pytest.raises(InputError, match="part-000001"):
        list(ScoreFile.open(tmp_path / "s").blocks())
    with pytest.raises(InputError, match="no scores are here"):
        ScoreFile.open(tmp_path)


def test_single_scores_are_read_where_rows_and_columns_cross(build: Path, tmp_path: Path) -> None:
    write(build, tmp_path / "s")
    scores = ScoreFile.open(tmp_path / "s")
    whole = np.concatenate([block for _, block in scores.blocks()])
    rows, columns = np.array([17, 0, 3, 4, 4]), np.array([8, 0, 8])
    assert np.array_equal(scores.mapped().crossings(rows, columns), whole[np.ix_(rows, columns)])
    assert whole.shape == (18, 9)
    assert json.loads((tmp_path / "s/scores.json").read_text())["model"] == "m"
    assert Storage(tmp_path / "s").list("clips") == []


def test_queries_are_scored_against_clips_without_captions(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(build, tmp_path / "blind"))
    manifest = Manifest.open(folder)
    rows = [row | {"captions": []} for row in manifest.table.to_pylist()]
    commit(folder, rows)
    (tmp_path / "queries.csv").write_text('caption\nA whistle\n"Hiss, far away"\nA whistle\n')
    settings = ScoringSettings("m", SPLIT, 4, queries=open_queries(tmp_path / "queries.csv"))
    write_scores(retriever(), Manifest.open(folder), settings, str(tmp_path / "s"))
    scores = ScoreFile.open(tmp_path / "s")
    assert scores.questions.texts == ["A whistle", "Hiss, far away"] and scores.questions.captions == 0
    assert cli.main(["submit", str(tmp_path / "s"), "--out", str(tmp_path / "p.csv")]) == 0
    assert cli.main(["evaluate", str(tmp_path / "s")]) == 2
    (tmp_path / "r.csv").write_text("query,audio_filenames\nA whistle,\"['clip 1001.x.wav']\"\n")
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "s"), "--relevance", str(tmp_path / "r.csv")]) == 0
    assert "text to audio multiple" in capsys.readouterr().out


def _other_table(name: str, **columns: Any) -> Any:
    """A change of one table of a folder."""

    def change(folder: Path) -> None:
        table = pq.read_table(folder / name)
        for column, values in columns.items():
            place = table.column_names.index(column)
            table = table.drop([column])
            table = table if values is None else table.add_column(place, column, pa.array(values))
        pq.write_table(table, folder / name)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _other_table("clips.parquet", clip_id=None),
        _other_table("clips.parquet", clip_id=[f"clotho/evaluation/{n}" for n in range(4)]),
        _other_table("clips.parquet", clip_id=[None, None, None, "x"]),
        _other_table("queries.parquet", clip=None),
        _other_table("queries.parquet", clip=["x"] * 8),
        _other_table("queries.parquet", clip=[0, 0, 1, 1, 2, 2, 2, 3]),
        _other_table("queries.parquet", text=[None] * 8),
        _other_table("queries.parquet", text=[f"other {n}" for n in range(8)]),
        lambda folder: (folder / "clips.parquet").unlink(),
        lambda folder: (folder / "queries.parquet").write_bytes(b"\0" * 100),
        lambda folder: (folder / "scores.json").write_text("[1]"),
        lambda folder: (folder / "scores.json").write_text(
            (folder / "scores.json").read_text().replace("clotho/evaluation", "clotho/validation")
        ),
    ],
)
def test_tables_of_other_scores_and_damaged_ones_are_refused(change: Any, tmp_path: Path) -> None:
    asked = questions(4, 2)
    write_matrix(tmp_path / "s", asked, noisy(asked, 1, 0))
    change(tmp_path / "s")
    with pytest.raises(InputError, match=r"run `scores` again"):
        ScoreFile.open(tmp_path / "s")


@pytest.mark.parametrize("source", ["other/part-000000.safetensors", "s/part-000001.safetensors"])
def test_parts_of_other_scores_and_of_another_place_are_refused(source: str, tmp_path: Path) -> None:
    asked = questions(9, 2)
    for seed, name in enumerate(("s", "other")):
        write_matrix(tmp_path / name, asked, noisy(asked, 1, seed), name)
    shutil.copy(tmp_path / source, tmp_path / "s/part-000000.safetensors")
    scores = ScoreFile.open(tmp_path / "s")
    with pytest.raises(InputError, match="belongs to other scores"):
        list(scores.blocks())
    with pytest.raises(InputError, match="belongs to other scores"):
        scores.mapped()


def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Questions("d/test", ["d/test/a", "d/test/b"], ["x"], ["x"], np.zeros(0, np.int64))
    for name in ("one", "two"):
        write_matrix(tmp_path / name, asked, np.array([[1.0, 2.0]]), name)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for words in (["evaluate", one], ["compare", one, two], ["ensemble", one, two]):
        assert cli.main(words) == 2
        assert "queries whose clips are not known" in capsys.readouterr().err
    assert cli.main(["ensemble", one, two, "--out", str(tmp_path / "both")]) == 0  # to be submitted
    assert cli.main(["evaluate", one, "--first", "3"]) == 2
    assert cli.main(["compare", f"={one}"]) == 2
    assert "has no name" in capsys.readouterr().err
    (tmp_path / "two/scores.json").rename(tmp_path / "two/started.json")
    assert cli.main(["evaluate", two]) == 2
    assert "not finished" in capsys.readouterr().err
