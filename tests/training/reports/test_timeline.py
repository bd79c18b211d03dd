"""How long a run took and what became of it, whatever its processes left behind."""

from __future__ import annotations

from typing import Any

import pytest

from training.reports.timeline import (
    EARLY,
    FAILED,
    FINISHED,
    GOING,
    STOPPED,
    effort_of,
    resumptions,
    state_of,
    stretches,
)


def start(at: float, step: int, ranks: int = 1, gpus: int = 0) -> dict[str, Any]:
    return {"what": "start", "at": at, "step": step, "ranks": ranks, "devices": {"chip": ranks}, "gpus": gpus}


KILLED = [start(0.0, 0, 4, 4), {"what": "lost", "at": 1800.0, "step": 9}, start(9000.0, 5, 2, 2)]


def test_hours_count_steps_that_were_lost_and_no_pause() -> None:
    records = [{"step": 11, "time": 10800.0}]
    found = stretches(KILLED, records, is_held=True)
    assert [(each.first, each.last, each.how) for each in found] == [(0, 9, STOPPED), (5, 12, GOING)]
    effort = effort_of(found, price=2.0)
    assert effort is not None and (effort.hours, effort.device_hours, effort.cost) == (1.0, 0.5 * 4 + 0.5 * 2, 6.0)
    assert effort.unit == "GPU hours"


def test_a_run_that_its_sweep_ended_did_not_fail() -> None:
    ended = {"what": "end", "at": 20.0, "step": 3, "error": "others were ahead", "by": "sweep"}
    assert [each.how for each in stretches([start(10.0, 0), ended], [], False)] == [EARLY]
    assert [each.how for each in stretches([start(10.0, 0)], [], False, is_stopped_early=True)] == [EARLY]
    goes_on = stretches([start(10.0, 0), ended, start(30.0, 3)], [], True)
    assert [each.how for each in goes_on] == [EARLY, GOING]


def test_a_finished_run_that_is_started_again_did_not_go_on_after_an_interruption() -> None:
    done = {"what": "end", "at": 20.0, "step": 3, "error": None}
    again = [start(30.0, 3), done | {"at": 40.0}]
    assert resumptions(stretches([start(10.0, 0), done, *again], [], False)) == []
    lost = {"what": "lost", "at": 15.0, "step": 2}
    assert resumptions(stretches([start(10.0, 0), lost, start(16.0, 2), done, *again], [], False)) == [2]


@pytest.mark.parametrize(
    ("end", "held", "state"),
    [
        ({"what": "end", "at": 20.0, "step": 3, "error": None}, False, FINISHED),
        ({"what": "end", "at": 20.0, "step": 3, "error": "the disk is full"}, False, FAILED),
        ({"what": "end", "at": 20.0, "step": 3, "error": "it was interrupted", "by": "user"}, False, STOPPED),
        ({"what": "lost", "at": 20.0, "step": 3}, False, STOPPED),
        (None, True, GOING),
        (None, False, STOPPED),
    ],
)
def test_what_became_of_a_run(end: dict[str, Any] | None, held: bool, state: str) -> None:
    events = [start(10.0, 0)] + ([end] if end else [])
    found = stretches(events, [{"step": 2, "time": 20.0}], held)
    assert state_of(found, False, held) == state and found[0].last == 3 and found[0].hours == 10 / 3600


def test_a_run_of_an_earlier_version_has_no_hours() -> None:
    assert effort_of([], 1.0) is None
    assert [state_of([], *known) for known in ((True, False), (False, True), (False, False))] == [
        FINISHED,
        GOING,
        STOPPED,
    ]


def test_a_clock_that_was_set_back_gives_no_negative_hours() -> None:
    events = [start(100.0, 0), {"what": "end", "at": 50.0, "step": 3, "error": None}]
    assert stretches(events, [], False)[0].hours == 0
