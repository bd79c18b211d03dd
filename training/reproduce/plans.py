"""What a plan is: runs, the systems that they make, and the published figures of these systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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


Kind = Literal["labels", "retrieval", "images", "captions"]  # as the commands classify, evaluate, images, caption


@dataclass(frozen=True)
class Cell:
    """A figure of a table of which each column is another test.

    Attributes:
        run: the name of the run that is tested.
        kind: the kind of the test.
        split: dataset/split, or a dataset, which stands for all of its splits.
        measure: the figure that is shown, as the command names it.
        published: the figure in the paper, in percent; None: it gives none.
        noise: standard deviation of the noise on the waves of a test of labels.
    """

    run: str
    kind: Kind
    split: str
    measure: str
    published: float | None = None
    noise: float = 0.0

    @property
    def test(self) -> str:
        """The name of the test, which several cells may share."""
        noise = f"-noise-{self.noise:g}" if self.noise else ""
        return f"{self.kind}-{self.split.replace('/', '-')}{noise}"


class Point(NamedTuple):
    """Where a system stands in a picture: on the curve of a model, at a place of the horizontal axis."""

    model: str
    x: float


@dataclass(frozen=True)
class Plan:
    """A table of a paper.  Either all its systems are compared on Clotho, or each of its columns is a test of its own.

    Attributes:
        source: the paper and the table.
        runs: by name, in an order in which a run comes after its start and its teachers.
        systems: the rows of a table of systems that are compared on Clotho, by their names.
        differences: what is not as in the paper, or not known of it; one sentence each.
        rows: the rows of a table of tests by their names, and in each the cells by the names of their columns.
        curve: where each system stands in the picture of the plan; empty: it has none.
        axis: the name of the picture's horizontal axis.
    """

    source: str
    runs: Mapping[str, PlannedRun]
    systems: Mapping[str, System]
    differences: tuple[str, ...] = field(default=())
    rows: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    curve: Mapping[str, Point] = field(default_factory=dict)
    axis: str = ""

    def __post_init__(self) -> None:
        known: set[str] = set()
        for name, run in self.runs.items():
            missing = {run.start, *run.teachers} - known - {""}
            assert not missing, f"{name} needs {missing} before it"
            known.add(name)
        for name, system in self.systems.items():
            assert set(system.runs) <= known, f"{name} has an unknown run"
        assert {cell.run for row in self.rows.values() for cell in row.values()} <= known, "a cell has an unknown run"

    @property
    def splits(self) -> list[str]:
        """What the tests of a table of tests need."""
        return list(dict.fromkeys(cell.split for row in self.rows.values() for cell in row.values()))


def original(map16: float | None, map10: float, r1: float, r5: float, r10: float) -> dict[tuple[str, str], float]:
    """Figures on the split's own captions."""
    found = {"mAP@10": map10, "R@1": r1, "R@5": r5, "R@10": r10} | ({} if map16 is None else {"mAP@16": map16})
    return {(ORIGINAL, name): value for name, value in found.items()}


def improved(map16: float, map10: float) -> dict[tuple[str, str], float]:
    """Figures with the challenge's improved correspondences."""
    return {(IMPROVED, "mAP@16"): map16, (IMPROVED, "mAP@10"): map10}
