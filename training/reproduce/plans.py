"""What a plan is: runs, the systems that they make, and the published figures of these systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ORIGINAL, IMPROVED = "text_to_audio", "text_to_audio_multiple"  # captions of the split; the challenge's new relevance
Figures = Mapping[tuple[str, str], float]  # of a task and a measure, in percent


@dataclass(frozen=True)
class PlannedRun:
    """A run that is trained once for each seed.

    Attributes:
        recipe: the name of a recipe that comes with Earshot.
        changes: keys of the recipe and their values, as ``--set`` takes them.
        start: the run with whose weights it starts; "": none.
        teachers: the runs from whose averaged scores it learns.
    """

    recipe: str
    changes: tuple[str, ...] = ()
    start: str = ""
    teachers: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """A row of a table: one run, or the mean of the scores of several ones.

    Attributes:
        runs: names of runs.
        published: the figures in the paper.
    """

    runs: tuple[str, ...]
    published: Figures


@dataclass(frozen=True)
class Plan:
    """A table of a paper.

    Attributes:
        source: the paper and the table.
        runs: by name, in an order in which a run comes after its start and its teachers.
        systems: the rows of the table by their names.
        differences: what is not as in the paper, or not known of it; one sentence each.
    """

    source: str
    runs: Mapping[str, PlannedRun]
    systems: Mapping[str, System]
    differences: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        known: set[str] = set()
        for name, run in self.runs.items():
            missing = {run.start, *run.teachers} - known - {""}
            assert not missing, f"{name} needs {missing} before it"
            known.add(name)
        for name, system in self.systems.items():
            assert set(system.runs) <= known, f"{name} has an unknown run"


def original(map16: float | None, map10: float, r1: float, r5: float, r10: float) -> dict[tuple[str, str], float]:
    """Figures on the split's own captions."""
    found = {"mAP@10": map10, "R@1": r1, "R@5": r5, "R@10": r10} | ({} if map16 is None else {"mAP@16": map16})
    return {(ORIGINAL, name): value for name, value in found.items()}


def improved(map16: float, map10: float) -> dict[tuple[str, str], float]:
    """Figures with the challenge's improved correspondences."""
    return {(IMPROVED, "mAP@16"): map16, (IMPROVED, "mAP@10"): map10}
