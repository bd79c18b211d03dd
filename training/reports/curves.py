"""Figures of a run by step as curves that a page draws (pure)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.run.log import flatten, speed_name

MOST = 240  # points of a curve; of more steps, each point is the mean of some
Point = tuple[float, float]
TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "data_wait": "share of the time spent waiting for data",
    "tau": "temperature",
}
_NO_CURVES = ("step", "time", "epoch", "loss", "loss_parts", "applied", "loss_bytes_received", "damaged", "kin_met")
BOUNDS = ("pessimistic_", "optimistic_", "chance_")  # prefixes of validation figures that frame others


@dataclass(frozen=True)
class Curve:
    """A figure by step.

    Attributes:
        name: what it is.
        points: steps and values, at least one; where there are many, of means over neighbouring steps.
        last: the last value.
        band: the lowest and the highest value of which each such mean is made: steps, low, high.
    """

    name: str
    points: list[Point]
    last: float
    band: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Curves over one another.

    Attributes:
        title: what they show.
        curves: at least one.
        first, last: the steps at the edges.
        low, high: the values at the edges.
        is_cut: whether values above ``high`` are cut off.
        marks: steps at which the run went on after an interruption.
    """

    title: str
    curves: list[Curve]
    first: float
    last: float
    low: float
    high: float
    is_cut: bool = False
    marks: list[int] = field(default_factory=list)

    def x(self, step: float) -> float:
        """The place of a step, from 0 to 1."""
        return (step - self.first) / ((self.last - self.first) or 1)

    def y(self, value: float) -> float:
        """The place of a value, from 0 to 1."""
        if self.high <= self.low:
            return 0.5
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def values_of(records: Iterable[Mapping[str, Any]], name: str) -> list[Point]:
    """Steps and finite values of one figure of the records; ``/`` leads into nested ones."""
    found = []
    for record in records:
        value: Any = record
        for part in [name] if name in record else name.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value) and isinstance(record["step"], int):
            found.append((float(record["step"]), float(value)))
    return found


def curve(name: str, points: Sequence[Point]) -> Curve:
    """A curve of at most `MOST` points, from at least one."""
    last = points[-1][1]
    if len(points) <= MOST:
        return Curve(name, list(points), last)
    edges = [len(points) * number // MOST for number in range(MOST + 1)]
    parts = [points[start:stop] for start, stop in itertools.pairwise(edges)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    spread = [(x, min(y for _, y in part), max(y for _, y in part)) for (x, _), part in zip(means, parts, strict=True)]
    return Curve(name, means, last, spread)


def chart(
    title: str, lines: Mapping[str, Sequence[Point]], steps: tuple[float, float], marks: Sequence[int] = ()
) -> Chart | None:
    """Curves as a chart; None if no line has a point.

    Values far above nearly all others, such as a loss that leapt once, are cut off so that the rest can be seen.
    """
    lines = {name: points for name, points in lines.items() if points}
    values = sorted(value for points in lines.values() for _, value in points)
    if not values:
        return None
    low, high = values[0], values[-1]
    usual = values[int(0.99 * (len(values) - 1))]
    limit = usual + 2 * (usual - low)
    is_cut = len(values) >= 20 and high > limit > low
    shown = [curve(name, points) for name, points in lines.items()]
    return Chart(title, shown, *steps, low, limit if is_cut else high, is_cut, list(marks))


def training_charts(records: Sequence[Mapping[str, Any]], marks: Sequence[int], unit: str = "clips") -> list[Chart]:
    """The loss, its terms where there are several, and every other figure of the steps, the loss first.

    Args:
        records: the lines of ``metrics.jsonl``.
        marks: steps at which the run went on after an interruption.
        unit: what a batch has so many of.
    """
    steps = _edges(records)
    parts = sorted({name for record in records for name in mapping_of(record.get("loss_parts"))})
    wanted = {"loss": "loss"}
    if len(parts) > 1:
        wanted |= {f"{part}, a term of the loss": f"loss_parts/{part}" for part in parts}
    titles = TITLES | {speed_name(unit): f"{unit} a second"}
    wanted |= {title: name for name, title in titles.items()}
    rest = dict.fromkeys(name for record in records for name in record if name not in titles and name not in _NO_CURVES)
    wanted |= {_words(name): name for name in rest}
    found = [chart(title, {title: values_of(records, name)}, steps, marks) for title, name in wanted.items()]
    return [each for each in found if each is not None]


def validation_charts(records: Sequence[Mapping[str, Any]], marks: Sequence[int]) -> list[Chart]:
    """The figures of the validations: those with a common first word in one chart, without their bounds."""
    steps = _edges(records)
    names = list(dict.fromkeys(name for record in records for name in flatten(mapping_of(record.get("validation")))))
    groups: dict[str, list[str]] = {}
    for name in names:
        task, slash, measure = name.partition("/")
        if not (measure or task).startswith(BOUNDS):
            groups.setdefault(task if slash else name, []).append(name)
    plain = [{"step": record["step"]} | flatten(mapping_of(record.get("validation"))) for record in records]
    charts = [
        chart(
            _words(task),
            {_words(name.partition("/")[2] or name): values_of(plain, name) for name in some},
            steps,
            marks,
        )
        for task, some in groups.items()
    ]
    return [each for each in charts if each is not None]


def _edges(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    steps = [record["step"] for record in records if isinstance(record["step"], int)]
    return (min(steps), max(steps)) if steps else (0, 0)


def mapping_of(value: Any) -> Mapping[str, Any]:
    """``value``, or nothing if it is no mapping."""
    return value if isinstance(value, Mapping) else {}


def _words(name: str) -> str:
    return name.replace("_", " ")
