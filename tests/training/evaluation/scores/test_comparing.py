"""Comparing systems, and ensembles of them, from their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharding.common.errors import InputError
from tests.training.evaluation.score_folders import noisy, questions, write_matrix
from training import cli
from training.evaluation.scores import files
from training.evaluation.scores.comparing import together
from training.evaluation.scores.ensembles import blend, choose_weights
from training.evaluation.scores.files import ScoreFile

ASKED = questions(60, 5)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 60 * 4 * 50)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_better_system_is_found_better_and_an_equal_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, strength, seed in (("a", 1.5, 1), ("equal", 1.5, 2), ("better", 2.5, 3), ("again", 2.5, 4)):
        write_matrix(tmp_path / name, ASKED, noisy(ASKED, strength, seed), name)
    systems = [str(tmp_path / "a"), str(tmp_path / "equal"), f"good={tmp_path / 'better'},{tmp_path / 'again'}"]
    found = answer(capsys, "compare", *systems)
    differences = {name: found["differences"][name]["text_to_audio"]["mAP@10"] for name in ("equal", "good")}
    assert differences["good"]["adjusted"] < 0.01 < differences["equal"]["adjusted"]
    assert differences["good"]["low"] > 0 > differences["equal"]["low"]
    good = found["systems"]["good"]
    assert good["seeds"] == 2 and good["text_to_audio"]["R@1"]["least"] < good["text_to_audio"]["R@1"]["most"]
    alone = answer(capsys, "evaluate", str(tmp_path / "better"))
    measures = good["text_to_audio"]
    assert alone["text_to_audio"]["R@5"] in (measures["R@5"]["least"], measures["R@5"]["most"])
    assert cli.main(["compare", *systems]) == 0
    shown = capsys.readouterr().out
    assert "2 seeds" in shown and "p = 0.0002" in shown


def test_commas_and_equal_signs_in_the_names_of_folders_are_no_separators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rain, wind", "lr=1,5", "a,b", "c"):
        write_matrix(tmp_path / name, ASKED, noisy(ASKED, 1.5, 1), name)
    alone = answer(capsys, "compare", str(tmp_path / "rain, wind"), str(tmp_path / "lr=1,5"))["systems"]
    assert {name: found["seeds"] for name, found in alone.items()} == {"rain, wind": 1, "lr=1,5": 1}
    words = [f"x={tmp_path / 'c'},{tmp_path / 'a,b'}", f"y={tmp_path / 'rain, wind'}"]
    named = answer(capsys, "compare", *words)["systems"]
    assert {name: found["seeds"] for name, found in named.items()} == {"x": 2, "y": 1}


def test_figures_of_100_percent_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_matrix(tmp_path / name, ASKED, noisy(ASKED, 1000, 1), name)
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "100.00 (100.00, 100.00)  100.00 (100.00, 100.00)" in capsys.readouterr().out


def test_systems_on_other_clips_or_texts_are_refused(tmp_path: Path) -> None:
    write_matrix(tmp_path / "a", ASKED, noisy(ASKED, 1, 1))
    few = questions(60, 4)
    write_matrix(tmp_path / "few", few, noisy(few, 1, 1))
    for command in ("compare", "ensemble"):
        assert cli.main([command, str(tmp_path / "a"), str(tmp_path / "few")]) == 2


def test_an_ensemble_of_systems_with_independent_errors_is_better_and_can_be_used_like_a_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = questions(60, 5, "clotho/validation")
    strengths = {"one": 1.5, "two": 1.5, "noise": 0.0}
    for seed, (name, strength) in enumerate(strengths.items()):
        write_matrix(tmp_path / name, ASKED, noisy(ASKED, strength, seed), name)
        write_matrix(tmp_path / f"{name}-val", held, noisy(held, strength, 10 + seed), name)
    folders = [str(tmp_path / name) for name in strengths]
    validation = [f"{folder}-val" for folder in folders]
    found = answer(capsys, "ensemble", *folders, "--validation", *validation, "--out", str(tmp_path / "mean"))
    mean = {name: figures["text_to_audio"]["mAP@10"] for name, figures in found["combinations"].items()}
    assert set(mean) >= {"one", "one + two", "one + two + noise", "chosen weights"} and len(mean) == 8
    assert mean["one + two"] > max(mean["one"], mean["two"]) > mean["noise"]
    assert found["weights"]["noise"] <= 0.1 and mean["chosen weights"] > mean["one + two + noise"]
    alone = answer(capsys, "evaluate", str(tmp_path / "mean"))
    assert alone["text_to_audio"]["mAP@10"] == mean["chosen weights"]
    assert answer(capsys, "ensemble", *folders)["combinations"]["one"] == found["combinations"]["one"]


def test_weights_are_never_chosen_on_the_clips_that_they_are_measured_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write_matrix(tmp_path / name, ASKED, noisy(ASKED, 1, 1), name)
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert cli.main(["ensemble", *folders, "--validation", *folders]) == 2
    assert "measured on" in capsys.readouterr().err
    held = questions(60, 5, "clotho/validation")
    for name in ("one", "two"):
        write_matrix(tmp_path / f"{name}-val", held, noisy(held, 1, 1), name)
    assert cli.main(["ensemble", *folders, "--validation", *(f"{f}-val" for f in reversed(folders))]) == 2
    assert "another model" in capsys.readouterr().err


def test_the_best_weights_of_two_systems_are_found(tmp_path: Path) -> None:
    asked = questions(40, 3)
    files = {
        name: write_matrix(tmp_path / name, asked, noisy(asked, strength, seed), name)
        for seed, (name, strength) in enumerate({"strong": 2.5, "weak": 0.5}.items())
    }
    weights, reached = choose_weights(files)
    assert sum(weights) == pytest.approx(1) and weights[0] > 0.5
    assert reached >= choose_weights({"x": files["strong"], "y": files["strong"]})[1] - 1e-12


@pytest.mark.parametrize("batches", [(1, 7), (50, 3), (300, 11)])
def test_parts_of_other_sizes_are_read_side_by_side(tmp_path: Path, batches: tuple[int, int]) -> None:
    matrices = [noisy(ASKED, 1, seed) for seed in range(2)]
    files = [
        write_matrix(tmp_path / str(n), ASKED, matrix, batch=batch)
        for n, (matrix, batch) in enumerate(zip(matrices, batches, strict=True))
    ]
    rows, blocks = zip(*together(files), strict=True)
    assert list(rows) == np.cumsum([0, *(len(pair[0]) for pair in blocks)]).tolist()[:-1]
    for number, matrix in enumerate(matrices):
        assert np.array_equal(np.concatenate([pair[number] for pair in blocks]), matrix.astype(np.float32))


def test_scores_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores are here"):
        ScoreFile.open(tmp_path / "nothing")


def test_infinite_scores_of_two_systems_do_not_make_a_clip_the_first_one() -> None:
    mean = blend([np.array([[np.inf, 1.0]], np.float32), np.array([[-np.inf, 1.0]], np.float32)], (0.5, 0.5))
    assert mean.tolist() == [[-np.inf, 1.0]]
