"""What a sweep tries, and how its settings stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.sweeps import (
    BEHIND,
    FAILED,
    FINISHED,
    LEFT,
    Standing,
    Sweep,
    Trial,
    ranked,
    trials_of,
    validations,
)
from sharding.common.errors import InputError
from training.run.log import STOPPED_EARLY


def test_every_combination_is_tried_with_every_seed() -> None:
    trials = trials_of(["optimizer.lr=1e-4, 1e-3", "optimizer.freeze=[], ['audio.*', 'text.*']"], 0, 2)
    assert [(trial.changes, trial.seed) for trial in trials[:4]] == [
        (("optimizer.lr=1e-4", "optimizer.freeze=[]"), 0),
        (("optimizer.lr=1e-4", "optimizer.freeze=[]"), 1),
        (("optimizer.lr=1e-4", "optimizer.freeze=['audio.*', 'text.*']"), 0),
        (("optimizer.lr=1e-4", "optimizer.freeze=['audio.*', 'text.*']"), 1),
    ]
    assert len(trials) == 8 and len({trial.folder for trial in trials}) == 8
    assert trials_of(["a.b=x,x"], 0, 1) == (Trial(("a.b=x",), 0),)


@given(
    low=st.integers(0, 50),
    room=st.integers(1, 50),
    samples=st.integers(1, 8),
    more=st.integers(0, 4),
    whole=st.booleans(),
)
def test_draws_are_inside_their_range_and_more_of_them_only_add_trials(
    low: int, room: int, samples: int, more: int, whole: bool
) -> None:
    over = [f"a={low}..{low + room}" if whole else f"a={low}.0..{low + room}.0", "b=1,2"]
    few, many = trials_of(over, samples, 1), trials_of(over, samples + more, 2)
    assert set(few) <= set(many)
    for trial in many:
        value = trial.changes[1].removeprefix("a=")
        assert value.isdecimal() == whole or not whole
        assert low <= float(value) <= low + room


def test_a_folder_is_a_plain_name_and_no_two_values_share_one() -> None:
    names = ["text.source=a/b", "text.source=a_b", "text.source=../x", f"text.source={'long' * 100}"]
    folders = [Trial((name,), 0).folder for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.count("/") == 2 and len(folder) < 200 and "/../" not in folder for folder in folders)


@pytest.mark.parametrize(
    ("over", "samples", "message"),
    [
        (["optimizer.lr"], 0, "KEY=VALUES"),
        (["optimizer.lr="], 0, "KEY=VALUES"),
        (["optimizer.lr=1,,2"], 0, "read as a YAML list"),
        (["optimizer.lr=[1"], 0, "read as a YAML list"),
        (["optimizer.lr=1e-2..1e-4"], 2, "lower one first"),
        (["optimizer.lr=-1..1"], 2, "lower one first"),
        (["optimizer.lr=1e-4..1e-2"], 0, "--samples"),
        (["optimizer.lr=1e-4"], 3, "--samples"),
        (["head.dim=1", "head.dim=2"], 0, "head.dim"),
        (["seed=1,2"], 0, "--seeds N"),
    ],
)
def test_options_that_mean_nothing_are_refused(over: list[str], samples: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trials_of(over, samples, 1)


def test_settings_rank_by_the_mean_of_their_seeds_and_incomplete_ones_come_last() -> None:
    def of(name: str, *standings: Standing) -> dict[Trial, Standing]:
        return {Trial((name,), seed): one for seed, one in enumerate(standings)}

    done, behind = Standing(0.5, 30, FINISHED), Standing(0.3, 10, BEHIND)
    rows = ranked(
        of("a", done, behind)
        | of("b", Standing(0.9, 30, FINISHED), Standing(None, 0, FAILED, "no memory"))
        | of("c", done, done)
        | of("d", Standing(0.95, 30, FINISHED), Standing(0.95, 20, LEFT))
        | of("e", Standing(None, 0, LEFT), Standing(None, 0, LEFT))
    )
    assert [row["changes"] for row in rows] == [["c"], ["a"], ["d"], ["b"], ["e"]]
    assert [row["complete"] for row in rows] == [True, True, False, False, False]
    assert (rows[1]["mean"], rows[1]["least"], rows[1]["most"]) == (0.4, 0.3, 0.5)
    assert rows[3]["runs"][1]["why"] == "no memory" and rows[4]["mean"] is None


def test_validations_are_read_by_their_metric() -> None:
    records = [
        {"step": 0, "loss": 1.0},
        {"step": 9, "validation": {"m": 0.25, "n": 1.0}},
        {"step": 19, "validation": {"m": None}},
        {"step": 29, "validation": {"m": 0.5}},
    ]
    assert validations(records, "m") == [(10, 0.25), (30, 0.5)]


def test_what_became_of_a_trial_is_read_from_its_folder(tmp_path: Path) -> None:
    trial = Trial(("a=1",), 0)
    sweep = Sweep((trial,), ({},), None, str(tmp_path), "m", stop_early=True, trust_code=False)
    assert sweep.standing(trial) == Standing(None, 0, LEFT)
    assert sweep.standing(trial, "no memory") == Standing(None, 0, FAILED, "no memory")
    run = tmp_path / trial.folder
    run.mkdir(parents=True)
    lines = [{"step": step, "validation": {"m": value}} for step, value in ((9, 0.5), (19, 0.25))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2')
    assert sweep.standing(trial) == Standing(0.5, 20, LEFT)
    (run / STOPPED_EARLY).touch()
    assert sweep.standing(trial) == Standing(0.5, 20, BEHIND)
    (run / "export").mkdir()
    (run / "export/config.json").touch()
    assert sweep.standing(trial) == Standing(0.5, 20, FINISHED)
