"""Ensembles: weighted means of the scores of several systems (Calvet and Toledano 2025, section 5.3 and table 3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.evaluation.counting import Block, Relevant, RowCounter, comparable
from training.evaluation.figures import BACKWARD, Questions, figures, multiple_of, rank_all
from training.evaluation.metrics import of_each_query
from training.evaluation.scores.comparing import common_questions, together
from training.evaluation.scores.files import ScoreFile, ScoreWriter

MOST = 8  # systems: all subsets of more would fill pages
STEPS = 10  # a weight is a multiple of one tenth
Weights = tuple[float, ...]


def subsets(count: int) -> list[tuple[int, ...]]:
    """Every choice of systems, the smallest first."""
    return [some for size in range(1, count + 1) for some in itertools.combinations(range(count), size)]


def blend(blocks: Sequence[Block], weights: Weights) -> Block:
    """The weighted mean of scores, as float32, in which equal scores tie; what is no number is the lowest score."""
    total = np.zeros(blocks[0].shape, np.float64)
    for block, weight in zip(blocks, weights, strict=True):
        if weight:
            with np.errstate(invalid="ignore"):
                total += weight * block.astype(np.float64)
    return comparable(total)


def all_subsets(
    files: Mapping[str, ScoreFile], table: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, dict[str, Any]]:
    """The figures of the equally weighted mean of every choice of systems, by their names joined with `` + ``."""
    questions, names = _questions(files), list(files)
    multiple = None if table is None else multiple_of(questions, table)
    found = {}
    for some in subsets(len(files)):
        chosen = [files[names[number]] for number in some]
        weights = (1 / len(some),) * len(some)
        blended = Blended(chosen, weights)
        ties = rank_all(blended.blocks, questions, multiple)
        found[" + ".join(names[number] for number in some)] = figures(ties, questions, multiple)
    return found


def choose_weights(files: Mapping[str, ScoreFile], measure: str = "mAP@10") -> tuple[Weights, float]:
    """The weights of the best mean on these scores, which must be of a validation split, and what it reaches.

    Weights are multiples of a tenth and sum to 1.  From equal weights on, a tenth moves from one system to another as
    long as that makes the mean over captions better; of equally good moves the first one is taken.
    """
    questions = _questions(files)
    if questions.direction == BACKWARD:
        remedy = "leave out the validation, for equal weights"
        raise InputError("weights are chosen by text to audio, and these scores are of audio to text", remedy=remedy)
    names = list(files)
    shares = [STEPS // len(names) + (number < STEPS % len(names)) for number in range(len(names))]
    known: dict[tuple[int, ...], float] = {}

    def reached(candidates: list[tuple[int, ...]]) -> None:
        new = [each for each in dict.fromkeys(candidates) if each not in known]
        known.update(zip(new, _values(list(files.values()), questions, new, measure), strict=True))

    best = tuple(shares)
    reached([best])
    while True:
        moves = [
            tuple(share - (n == giver) + (n == taker) for n, share in enumerate(best))
            for giver, taker in itertools.permutations(range(len(names)), 2)
            if best[giver]
        ]
        reached(moves)
        better = max(moves, key=lambda each: known[each], default=best)
        if known[better] <= known[best]:
            return tuple(share / STEPS for share in best), known[best]
        best = better


def write_blend(files: Mapping[str, ScoreFile], weights: Weights, out: str) -> None:
    """Write the scores of an ensemble, which are used like those of a model."""
    questions = _questions(files)
    parts = [f"{weight:g} {name}" for name, weight in zip(files, weights, strict=True)]
    prints = "".join(f"{file.head.get('fingerprint')}{w}" for file, w in zip(files.values(), weights, strict=True))
    builds = {str(file.head.get("build")) for file in files.values()}
    identity = {
        "model": "ensemble of " + ", ".join(parts),
        "fingerprint": xxhash.xxh3_128_hexdigest(prints.encode()),
        "build": ", ".join(sorted(builds)),
    }
    writer = ScoreWriter(Storage(out), questions, identity)
    if not writer.begin():
        return
    missing = set(writer.missing())
    held: list[Block] = []
    part = 0
    for _, block in Blended(list(files.values()), weights).blocks():
        held.append(block)
        while part < writer.parts and sum(map(len, held)) >= _size(writer, part):
            whole, size = np.concatenate(held), _size(writer, part)
            if part in missing:
                writer.write(part, whole[:size])
            held, part = [whole[size:]], part + 1
    writer.finish()


def _size(writer: ScoreWriter, part: int) -> int:
    rows = writer.rows_of(part)
    return int(rows.stop - rows.start)


class Blended:
    """The weighted mean of score files, block by block."""

    def __init__(self, files: Sequence[ScoreFile], weights: Weights) -> None:
        self._files, self._weights = files, weights

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """The first row of each block, and its scores."""
        return ((first, blend(blocks, self._weights)) for first, blocks in together(self._files))


def _values(
    files: Sequence[ScoreFile], questions: Questions, candidates: Sequence[tuple[int, ...]], measure: str
) -> list[float]:
    """The mean over captions of each weighted mean, in one pass over the scores."""
    own: Relevant = questions.truth().own()
    counters = [RowCounter(own) for _ in candidates]
    for first, blocks in together(files) if candidates else ():
        for counter, shares in zip(counters, candidates, strict=True):
            counter.add(first, blend(blocks, tuple(share / STEPS for share in shares)))
    rankings = [counter.ties().ranking(len(questions.clips)) for counter in counters]
    return [float(of_each_query(ranking)[measure].mean()) for ranking in rankings]


def _questions(files: Mapping[str, ScoreFile]) -> Questions:
    if not 2 <= len(files) <= MOST:
        raise InputError(f"an ensemble has 2 to {MOST} systems", value=len(files))
    return common_questions(list(files.values()))
