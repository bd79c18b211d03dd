"""Re-ranking as a command: its ranking is scores like any others, and a killed run ends with the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.training.evaluation.score_folders import noisy, questions, write_matrix
from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.search.indexes import exported, untrained
from tests.training.small_runs import REPOSITORY, commit
from training.cli import main
from training.evaluation.scores.files import ScoreFile
from training.reranking.fusion import best_items, fuse
from training.reranking.run import Judged, write_scores

IDENTITY = {"model": "judge", "fingerprint": "j", "top": 3}


def parts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def scored(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and its scores of two splits."""
    root = tmp_path_factory.mktemp("scored")
    exported(untrained(TINY), root / "model")
    for split in ("development", "evaluation"):
        words = ["scores", str(root / "model"), "--shards", str(build), "--split", f"clotho/{split}"]
        assert main([*words, "--out", str(root / split)]) == 0
    return root


def command(build: Path, scored: Path, measured: str, tuned: str, out: Path) -> list[str]:
    files = ["--scores", str(scored / measured), "--tune", str(scored / tuned)]
    return ["rerank", str(scored / "model"), "--shards", str(build), *files, "--top", "12", "--out", str(out)]


def test_the_new_ranking_is_scores_that_every_command_reads(
    build: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    def refusal(*words: str) -> str:
        assert main(list(words)) == 2
        return capsys.readouterr().err

    out = tmp_path / "judged"
    words = command(build, scored, "evaluation", "development", out)
    found = answer(*words)
    for direction, other in (("text_to_audio", "audio_to_text"), ("audio_to_text", "text_to_audio")):
        assert found[direction]["scores"] == f"{out}/scores/{direction}"
        figures = answer("evaluate", found[direction]["scores"])
        assert figures[direction] == pytest.approx(found[direction]["reranked"]) and other not in figures
        compared = answer("compare", f"first={scored / 'evaluation'}", f"judged={found[direction]['scores']}")
        assert set(compared["systems"]["first"]) == {"seeds", direction, f"{direction}_equal"}
    forward, backward = (found[direction]["scores"] for direction in ("text_to_audio", "audio_to_text"))
    systems = [f"first={scored / 'evaluation'}", f"judged={forward}"]
    validation = [str(scored / "development"), f"{out}/tune/text_to_audio"]
    weights = answer("ensemble", *systems, "--validation", *validation, "--out", str(tmp_path / "both"))["weights"]
    assert weights["first"] + weights["judged"] == pytest.approx(1)
    assert "audio_to_text" not in answer("evaluate", str(tmp_path / "both"))
    assert answer("submit", forward, "--out", str(tmp_path / "predictions.csv"))["files"] == 9
    assert "rank captions" in refusal("submit", backward, "--out", str(tmp_path / "predictions.csv"))
    assert "different directions" in refusal("compare", f"a={forward}", f"b={backward}")
    again = [forward if word == str(scored / "evaluation") else word for word in words]
    assert "re-ranked already" in refusal(*again)

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert answer(*words) == found
    assert {path: path.stat().st_mtime_ns for path in before if path.name != "reranking.json"} == {
        path: when for path, when in before.items() if path.name != "reranking.json"
    }


def test_queries_without_captions_are_re_ranked_without_figures(
    build: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = Path(shutil.copytree(build, tmp_path / "blind"))
    rows = Manifest.open(blind).table.to_pylist()
    commit(blind, [row | ({"captions": []} if row["split"] == "evaluation" else {}) for row in rows])
    (tmp_path / "queries.csv").write_text('query\nA whistle\n"Hiss, far away"\n')
    words = ["scores", str(scored / "model"), "--shards", str(blind), "--split", "clotho/evaluation"]
    assert main([*words, "--queries", str(tmp_path / "queries.csv"), "--out", str(tmp_path / "asked")]) == 0
    out, files = tmp_path / "judged", ["--scores", str(tmp_path / "asked"), "--tune", str(scored / "development")]
    again = ["rerank", str(scored / "model"), "--shards", str(blind), *files, "--top", "4", "--out", str(out)]
    capsys.readouterr()
    assert main(again) == 0
    shown = capsys.readouterr()
    assert "2 queries:" in shown.out and "there are no figures" in shown.out and "R@1" not in shown.out
    assert "audio to text" not in shown.out + shown.err and not (out / "scores/audio_to_text").exists()
    assert main([*again, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["text_to_audio"]
    assert found["queries"] == 2 and "reranked" not in found

    first, judged = ScoreFile.open(tmp_path / "asked"), ScoreFile.open(found["scores"])
    assert judged.questions.texts == ["A whistle", "Hiss, far away"] and judged.questions.direction == "text_to_audio"
    (_, before), (_, after) = next(first.blocks()), next(judged.blocks())
    assert ((after != before).sum(1) == (4 if found["weight"] else 0)).all()
    assert main(["submit", found["scores"], "--out", str(tmp_path / "predictions.csv")]) == 0
    (tmp_path / "right.csv").write_text("query,audio_filenames\nA whistle,\"['clip 1001.x.wav']\"\n")
    assert main(["evaluate", found["scores"], "--relevance", str(tmp_path / "right.csv")]) == 0
    capsys.readouterr()
    swapped = ["--scores", str(scored / "evaluation"), "--tune", str(tmp_path / "asked"), "--out", str(tmp_path / "no")]
    assert main(["rerank", str(scored / "model"), "--shards", str(blind), *swapped]) == 2
    assert "whose clips are known" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_the_scores_that_are_written_are_those_of_the_new_ranking(tmp_path: Path) -> None:
    asked = questions(5, 2)
    matrix = noisy(asked, 0.5, 0).astype(np.float32)
    first = write_matrix(tmp_path / "first", asked, matrix)
    own = asked.clip_of[:, None] == np.arange(5)[None]
    for direction, scores, relevant in (("text_to_audio", matrix, own), ("audio_to_text", matrix.T, own.T)):
        candidates = best_items(scores, 3)
        said = np.random.default_rng(1).random(candidates.shape).astype(np.float32)
        out = tmp_path / direction
        write_scores(Judged(scores, relevant, candidates, said, 0.1), 2.0, first, direction, IDENTITY, Storage(out))
        written = ScoreFile.open(out)
        assert (written.questions.direction, written.questions.texts) == (direction, asked.texts)
        found = np.concatenate([block for _, block in written.blocks()])
        expected = fuse(scores, candidates, said, 2.0)
        np.testing.assert_array_equal(found if direction == "text_to_audio" else found.T, expected)
        assert written.head["fingerprint"] != first.head["fingerprint"]


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(build: Path, scored: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command(build, scored, "development", "evaluation", whole)) == 0
    again = command(build, scored, "development", "evaluation", cut)
    killed = subprocess.Popen(
        [sys.executable, "-m", "training", *again],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # sums round differently with another number of threads
        start_new_session=True,
    )
    while not parts(cut):
        assert killed.poll() is None, "it ended before it had written anything"
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    expected = parts(whole)
    assert len(parts(cut)) < len(expected) == 9  # five of judgements, and four of scores
    assert main(again) == 0
    assert parts(cut) == expected
