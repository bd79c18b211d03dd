"""Several systems on one split: their figures with intervals, and their differences with tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sharding.common.errors import InputError
from training.evaluation.counting import Block, Relevant, Ties
from training.evaluation.figures import BACKWARD, MULTIPLE, Questions, graded, multiple_of, rank_all, require_truth
from training.evaluation.metrics import Floats, Ints, of_each_query
from training.evaluation.scores.files import ScoreFile
from training.evaluation.scores.statistics import bootstrap, holm, paired, stacked


@dataclass(frozen=True)
class Measured:
    """The values of one task's queries.

    Attributes:
        values: the values of each measure, ``[queries]``.
        belongs: ``[queries]`` the clip to which each query belongs, or a number of its own.
    """

    values: dict[str, Floats]
    belongs: Ints


def measured(found: Mapping[str, Ties], questions: Questions, multiple: Relevant | None = None) -> dict[str, Measured]:
    """The values of single queries, from `training.evaluation.figures.rank_all`."""
    tasks = {}
    for name, ties in found.items():
        backward = name.startswith(BACKWARD)
        values = of_each_query(ties.ranking(questions.captions if backward else len(questions.clips)))
        if name == MULTIPLE and multiple is not None and multiple.gain is not None and len(set(multiple.gain)) > 1:
            values |= graded(ties, multiple, len(questions.clips))
        queries = np.unique(ties.query)
        belongs = queries
        if not backward:
            own = np.arange(len(questions.texts)) + len(questions.clips)
            own[: questions.captions] = questions.clip_of
            belongs = own[queries]
        tasks[name] = Measured(values, belongs)
    return tasks


def common_questions(files: Sequence[ScoreFile]) -> Questions:
    """The questions that all files score; of one direction only if one of the files is.

    Raises:
        InputError: they score other texts or clips, or in another order, or have no direction in common.
    """
    first = files[0].questions
    for file in files[1:]:
        other = file.questions
        for what, one, two in (("clips", first.clips, other.clips), ("texts", first.texts, other.texts)):
            if one != two:
                at = next((n for n, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), None)
                raise InputError(
                    f"these scores are of other {what} than those of {files[0].storage.name('')}",
                    file=file.storage.name(""),
                    value=f"{len(one)} and {len(two)}" if at is None else two[at],
                    remedy="score all systems on the same split of the same build, with the same --relevance",
                )
        if not np.array_equal(first.clip_of, other.clip_of):
            raise InputError(
                f"here captions belong to other clips than in {files[0].storage.name('')}",
                file=file.storage.name(""),
                remedy="score all systems on the same split of the same build",
            )
    of_one = {direction: file for file in files if (direction := file.questions.direction) is not None}
    if len(of_one) > 1:
        names = " and ".join(f"{file.storage.name('')} of {each.replace('_', ' ')}" for each, file in of_one.items())
        raise InputError(f"these scores are of different directions: {names}", remedy="name folders of one direction")
    return replace(first, direction=next(iter(of_one), None))


def compare(
    systems: Mapping[str, Sequence[ScoreFile]], table: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """Compare systems, each of one or several seeds; the first one is what the others are tested against.

    Returns:
        ``{"split", "systems": {name: {"seeds", task: {measure: {"mean", "low", "high", "least", "most"}}}},
        "differences": {name: {task: {measure: {"mean", "low", "high", "p", "adjusted"}}}}}``.  The mean of a system
        is over its seeds, ``least`` and ``most`` are those of its seeds, and the interval is over queries.
        ``adjusted`` is p after Holm's correction for the number of systems.
    """
    files = [file for seeds in systems.values() for file in seeds]
    questions = common_questions(files)
    require_truth(questions, table, files[0].storage.name(""))
    multiple = None if table is None else multiple_of(questions, table)
    of_system = {
        name: [measured(rank_all(file.blocks, questions, multiple), questions, multiple) for file in seeds]
        for name, seeds in systems.items()
    }
    means = {name: _mean_of_seeds(seeds) for name, seeds in of_system.items()}
    result: dict[str, Any] = {"split": questions.split, "systems": {}, "differences": {}}
    for name, seeds in of_system.items():
        result["systems"][name] = {"seeds": len(seeds)}
        for task, found in means[name].items():
            intervals = bootstrap(stacked(found.values), found.belongs)
            rows = {}
            for measure, estimate in zip(found.values, intervals, strict=True):
                each = [float(seed[task].values[measure].mean()) for seed in seeds]
                rows[measure] = asdict(estimate) | {"least": min(each), "most": max(each)}
            result["systems"][name][task] = rows
    _test(result, means)
    return result


def _mean_of_seeds(seeds: Sequence[Mapping[str, Measured]]) -> dict[str, Measured]:
    return {
        task: Measured(
            {name: np.mean([seed[task].values[name] for seed in seeds], axis=0) for name in found.values},
            found.belongs,
        )
        for task, found in seeds[0].items()
    }


def _test(result: dict[str, Any], means: Mapping[str, Mapping[str, Measured]]) -> None:
    """Add what the systems after the first one differ from it by."""
    names = list(means)
    for name in names[1:]:
        result["differences"][name] = {}
        for task, found in means[name].items():
            other = means[names[0]][task]
            tests = paired(stacked(found.values), stacked(other.values), found.belongs)
            rows = {measure: asdict(test) for measure, test in zip(found.values, tests, strict=True)}
            result["differences"][name][task] = rows
    for task in means[names[0]]:
        for measure in means[names[0]][task].values:
            tested = [result["differences"][name][task][measure] for name in names[1:]]
            for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
                row["adjusted"] = adjusted


def together(files: Sequence[ScoreFile]) -> Iterator[tuple[int, list[Block]]]:
    """The same rows of several score files, whatever the sizes of their parts."""
    streams = [file.blocks() for file in files]
    held = [next(stream, None) for stream in streams]
    row = 0
    while all(part is not None for part in held):
        ends = [part[0] + len(part[1]) for part in held if part is not None]
        stop = min(ends)
        yield row, [part[1][row - part[0] : stop - part[0]] for part in held if part is not None]
        held = [next(s, None) if end == stop else part for s, part, end in zip(streams, held, ends, strict=True)]
        row = stop
