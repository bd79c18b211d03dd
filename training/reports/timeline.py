"""How a run went: its starts, how long each lasted, what it took and what it cost (pure)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FINISHED, FAILED, GOING, STOPPED, EARLY = "finished", "failed", "training now", "stopped", "stopped early"


@dataclass(frozen=True)
class Stretch:
    """One start of a run until its end.

    Attributes:
        begin, end: seconds since 1970; the end is that of its last step where it noted none.
        first, last: the steps that were taken before and after it.
        ranks: how many there were.
        devices: how many of each kind.
        gpus: how many of them are GPUs.
        how: what ended it: `FINISHED`, `FAILED`, `GOING` (nothing), `STOPPED` (it was interrupted or killed) or `EARLY`
            (its sweep).
        error: why it ended before the last step, where it noted that.
    """

    begin: float
    end: float
    first: int
    last: int
    ranks: int
    devices: dict[str, int]
    gpus: int
    how: str
    error: str | None = None

    @property
    def hours(self) -> float:
        return max(0.0, self.end - self.begin) / 3600


def stretches(
    events: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    is_held: bool,
    is_stopped_early: bool = False,
) -> list[Stretch]:
    """The starts of a run, oldest first.

    Args:
        events: the lines of ``starts.jsonl``.
        records: the lines of ``metrics.jsonl``.
        is_held: whether a process trains now.
        is_stopped_early: whether a sweep has ended the run.
    """
    found = []
    for number, start in enumerate(events):
        if start["what"] != "start":
            continue
        after = events[number + 1] if number + 1 < len(events) else None
        if after is None:
            last = records[-1] if records else {}
            end, step, error = last.get("time") or start["at"], last.get("step", start["step"] - 1) + 1, None
            how = GOING if is_held else EARLY if is_stopped_early else STOPPED
        else:
            end, step, error = after["at"], after["step"], after.get("error")
            how = _ending(after)
        devices = dict(start.get("devices", {}))
        sizes = (start.get("ranks", 1), devices, start.get("gpus", 0))
        found.append(Stretch(start["at"], max(end, start["at"]), start["step"], step, *sizes, how, error))
    return found


def _ending(event: Mapping[str, Any]) -> str:
    """What an event that follows a start says about its end."""
    if event["what"] != "end" or event.get("by") == "user":
        return STOPPED
    return EARLY if event.get("by") == "sweep" else FAILED if event.get("error") else FINISHED


def resumptions(found: Sequence[Stretch]) -> list[int]:
    """The steps at which the run went on after an interruption, without starts that took no step."""
    went_on = (each for before, each in itertools.pairwise(found) if before.how != FINISHED and each.last > each.first)
    return [each.first for each in went_on]


def state_of(found: Sequence[Stretch], is_exported: bool, is_held: bool) -> str:
    """What became of the run as a whole."""
    if found:
        return found[-1].how
    return GOING if is_held else FINISHED if is_exported else STOPPED


@dataclass(frozen=True)
class Effort:
    """Hours of a run, hours of all its devices together, and what these cost at a price for one of them."""

    hours: float
    device_hours: float
    on_gpus: bool
    cost: float | None

    @property
    def unit(self) -> str:
        return "GPU hours" if self.on_gpus else "rank hours"


def effort_of(found: Sequence[Stretch], price: float | None) -> Effort | None:
    """The effort of all starts in hours and cost; None if none of them was noted.

    Args:
        found: the starts.
        price: the price of one device for an hour: of a GPU, or of what a rank without a GPU uses; None: not known.
    """
    if not found:
        return None
    on_gpus = any(each.gpus for each in found)
    device_hours = sum(each.hours * (each.gpus if on_gpus else each.ranks) for each in found)
    return Effort(
        sum(each.hours for each in found), device_hours, on_gpus, None if price is None else price * device_hours
    )
