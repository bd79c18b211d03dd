"""The trials of a sweep, and the ranking of its settings; without Ray."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xxhash
import yaml

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.engine.remote import CONFIG, EXPORT
from training.run.log import METRICS, STOPPED_EARLY, records_of

FINISHED, BEHIND, FAILED, LEFT = "finished", "stopped early", "failed", "not finished"
_WHOLE = re.compile(r"\d+")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        changes: ``key=value`` of every key that the sweep changes, as ``--set`` takes it.
        seed: the seed of the run.
    """

    changes: tuple[str, ...]
    seed: int

    @property
    def folder(self) -> str:
        """Where the run lies below the sweep's folder."""
        name = ",".join(self.changes)
        plain = re.sub(r"[^\w.+=,-]", "_", name)[:120]
        if plain != name:  # no name of a file, or too long for one
            plain += "-" + xxhash.xxh3_64_hexdigest(name.encode())
        return f"runs/{plain}/seed-{self.seed}"

    @property
    def label(self) -> str:
        """The name of the trial in messages."""
        return f"{' '.join(self.changes)}, seed {self.seed}"


def trials_of(over: Sequence[str], samples: int, seeds: int) -> tuple[Trial, ...]:
    """Every combination of the listed values, with each of ``samples`` draws from the ranges, each with every seed.

    The trials follow from the arguments alone, and more samples or seeds only add some.

    Args:
        over: ``KEY=A,B,C`` lists values, which are YAML.  ``KEY=LOW..HIGH`` is a range: values are drawn evenly in
            their logarithm, or evenly where LOW is 0; whole numbers where both ends are written as such.
        samples: draws from the ranges.
        seeds: how many seeds each combination is tried with, from 0.

    Raises:
        InputError: an option has another form, a key comes twice, or there are ranges without samples.
    """
    if seeds < 1:
        raise InputError("--seeds must be at least 1", value=seeds)
    listed: list[list[str]] = []
    ranges: dict[str, _Range] = {}
    keys: set[str] = set()
    for each in over:
        key, equals, text = (part.strip() for part in each.partition("="))
        if not equals or not key or not text:
            raise InputError("--over must read KEY=VALUES", value=each, remedy="such as optimizer.lr=1e-4,1e-3")
        if key in keys or key == "seed":
            remedy = "name a key once; --seeds N gives every combination the seeds 0 to N-1"
            raise InputError(f"--over cannot take {key} here", value=each, remedy=remedy)
        keys.add(key)
        if (found := _range(each, text)) is not None:
            ranges[key] = found
        else:
            listed.append([f"{key}={value}" for value in _values(each, text)])
    if bool(ranges) != (samples > 0):
        remedy = "--samples N says how many values are drawn from KEY=LOW..HIGH; give both, or neither"
        raise InputError("ranges and --samples belong together", value=f"--samples {samples}", remedy=remedy)
    rng = np.random.default_rng(0)
    drawn = [tuple(f"{key}={one.draw(rng)}" for key, one in ranges.items()) for _ in range(max(1, samples))]
    combinations = [(*values, *more) for more in drawn for values in itertools.product(*listed)]
    return tuple(Trial(changes, seed) for changes in dict.fromkeys(combinations) for seed in range(seeds))


class _Range(NamedTuple):
    """``LOW..HIGH``."""

    low: float
    high: float
    whole: bool

    def draw(self, rng: np.random.Generator) -> str:
        """Draw a value as it is shown: a whole number, or one with three digits."""
        high = self.high + self.whole  # a drawn number from 3.0 up to 4.0 gives the whole number 3
        if self.low > 0:
            value = math.exp(rng.uniform(math.log(self.low), math.log(high)))
        else:
            value = rng.uniform(self.low, high)
        return str(min(int(value), int(self.high))) if self.whole else f"{value:.3g}"


def _range(option: str, text: str) -> _Range | None:
    """The range that a text names; None: the text is a list of values."""
    ends = text.split("..")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        return None
    if not 0 <= low < high < math.inf:
        raise InputError("LOW..HIGH must be two numbers, 0 or more, the lower one first", value=option)
    return _Range(low, high, all(_WHOLE.fullmatch(end.strip()) for end in ends))


def _values(option: str, text: str) -> list[str]:
    """The values of a list as they are written; commas inside brackets and quotes belong to a value."""
    try:
        node = yaml.compose(f"[{text}]", yaml.SafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"the values cannot be read as a YAML list: {problem}", value=option) from error
    assert node is not None  # the brackets are there
    marks = [(one.start_mark.index - 1, one.end_mark.index - 1) for one in node.value]
    return [text[begin:end].strip() for begin, end in marks]


class Standing(NamedTuple):
    """What became of a trial.

    Attributes:
        value: the best of its validations so far; None: there was none.
        step: how many steps it had taken at its newest validation.
        state: ``FINISHED``, ``BEHIND``, ``FAILED`` or ``LEFT``.
        why: it failed.
    """

    value: float | None
    step: int
    state: str
    why: str = ""


@dataclass(frozen=True)
class Sweep:
    """What the trials of a sweep need; all results are in the folders of their runs.

    Attributes:
        trials: what is tried.
        recipes: those of the trials, as plain trees with every default.
        shards: the build's address; None: the task reads no shards.
        out: the folder or address of the sweep.
        metric: the figure of the validation split by which trials are compared; more is better.
        stop_early: whether trials that fall behind end.
        trust_code: whether to run the code that comes with teachers and with ``init_from``.
    """

    trials: tuple[Trial, ...]
    recipes: tuple[dict[str, Any], ...]
    shards: str | None
    out: str
    metric: str
    stop_early: bool
    trust_code: bool

    def run(self, trial: Trial) -> Storage:
        """The folder of a trial's run."""
        return Storage(f"{self.out}/{trial.folder}")

    def validations(self, trial: Trial) -> list[tuple[int, float]]:
        """Steps taken and value of each validation of a trial so far."""
        run = self.run(trial)
        return validations(records_of(run.read(METRICS)) if run.exists(METRICS) else [], self.metric)

    def standing(self, trial: Trial, why: str = "") -> Standing:
        """What became of a trial, as its folder says; ``why`` it failed, if it just did."""
        run, found = self.run(trial), self.validations(trial)
        state = FAILED if why else BEHIND if run.exists(STOPPED_EARLY) else LEFT
        state = FINISHED if run.exists(f"{EXPORT}/{CONFIG}") else state
        return Standing(max((value for _, value in found), default=None), found[-1][0] if found else 0, state, why)


def validations(records: Iterable[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    """Steps taken and value of each validation in the lines of a ``metrics.jsonl``, where the value is a number."""
    found = [(record["step"] + 1, (record.get("validation") or {}).get(metric)) for record in records]
    return [(step, float(value)) for step, value in found if isinstance(value, int | float)]


def ranked(standings: Mapping[Trial, Standing]) -> list[dict[str, Any]]:
    """The settings of a sweep, best first by the mean over seeds; settings with missing seeds come last.

    A run that was stopped early counts with the best value that it had reached.
    """
    rows = []
    for changes, group in itertools.groupby(standings.items(), key=lambda each: each[0].changes):
        runs = [(trial, standing) for trial, standing in group]
        values = [one.value for _, one in runs if one.value is not None]
        whole = len(values) == len(runs) and all(one.state in (FINISHED, BEHIND) for _, one in runs)
        rows.append(
            {
                "changes": list(changes),
                "complete": whole,
                "mean": sum(values) / len(values) if values else None,
                "least": min(values, default=None),
                "most": max(values, default=None),
                "runs": [{"seed": trial.seed, "folder": trial.folder, **one._asdict()} for trial, one in runs],
            }
        )
    return sorted(rows, key=lambda row: (not row["complete"], math.inf if row["mean"] is None else -row["mean"]))
