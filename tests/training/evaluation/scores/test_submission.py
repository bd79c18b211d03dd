"""The challenge's table of predictions: written, checked, and refused where it is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from sharding.common.errors import InputError
from tests.training.evaluation.score_folders import noisy, questions, write_matrix
from training import cli
from training.evaluation.scores.submission import check_predictions

ASKED = questions(4, 2)
NAMES = [f"clip {number}.x.wav" for number in range(4)]


def test_a_table_has_a_row_for_each_query_and_a_column_for_each_file(tmp_path: Path) -> None:
    scores = noisy(ASKED, 1, 1)
    write_matrix(tmp_path / "s", ASKED, scores)
    assert cli.main(["submit", str(tmp_path / "s"), "--out", str(tmp_path / "p.csv")]) == 0
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert rows[0] == ["index", *NAMES]
    assert [row[0] for row in rows[1:]] == ASKED.texts
    assert np.array_equal(np.array([row[1:] for row in rows[1:]], np.float32), scores.astype(np.float32))
    assert cli.main(["submit", str(tmp_path / "s"), "--out", str(tmp_path / "p.csv"), "--check"]) == 0


def test_before_2025_a_row_has_the_best_files(tmp_path: Path) -> None:
    asked = questions(12, 1)
    scores = noisy(asked, 5, 1)
    write_matrix(tmp_path / "s", asked, scores)
    assert cli.main(["submit", str(tmp_path / "s"), "--out", str(tmp_path / "p.csv"), "--year", "2024"]) == 0
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert all(len(row) == 11 for row in rows)
    assert rows[3][1] == f"clip {scores[2].argmax()}.x.wav"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("index", "query", 1), "first column"),
        (lambda text: text.replace("clip 2.x.wav", "clip 2.wav", 1), "are missing"),
        (lambda text: text.replace("clip 2.x.wav", "clip 1.x.wav", 1), "are missing"),
        (lambda text: text.replace("Caption 3", "Caption 33"), "queries are missing"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.replace("0.5", "nan", 1), "not a finite number"),
        (lambda text: text.replace(",0.5", "", 1), "cells"),
        (lambda text: text + "x" * 200_000, "field limit"),
        (lambda text: "", "first column"),
    ],
)
def test_a_wrong_table_is_refused(change: object, message: str) -> None:
    lines = ["index," + ",".join(NAMES)] + [f'"{text}",' + ",".join(["0.5"] * 4) for text in ASKED.texts]
    right = "\n".join(lines) + "\n"
    assert check_predictions(right, "p.csv", ASKED.texts, NAMES) == 8
    with pytest.raises(InputError, match=message):
        check_predictions(change(right), "p.csv", ASKED.texts, NAMES)  # type: ignore[operator]


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = noisy(ASKED, 1, 1)
    scores[3, 2] = np.nan
    write_matrix(tmp_path / "s", ASKED, scores)
    assert cli.main(["submit", str(tmp_path / "s"), "--out", str(tmp_path / "p.csv")]) == 2
    assert "not a finite number" in capsys.readouterr().err and not (tmp_path / "p.csv").exists()
