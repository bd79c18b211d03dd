"""From a score matrix to figures, wherever the matrix comes from: a model that scores it, or a file.

The rows of the matrix are the captions of a split, and after them further queries; the columns are its clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharding.common.errors import InputError
from training.data.captions import normalise
from training.data.settings import DataSettings
from training.engine.distributed import Group, LocalGroup
from training.evaluation.counting import Block, ColumnCounter, ColumnScores, Relevant, RowCounter, Ties, rank_rows
from training.evaluation.metrics import MEASURED, PRECISION_AT, Ranking, expected_ndcg, metrics, of_each_query
from training.evaluation.relevance import relevant_clips
from training.evaluation.split import Split
from training.evaluation.truth import Truth, transposed

Blocks = Callable[[], Iterator[tuple[int, Block]]]  # the rows of a matrix, as often as they are wanted
MULTIPLE = "text_to_audio_multiple"
FORWARD, BACKWARD = "text_to_audio", "audio_to_text"


@dataclass(frozen=True)
class Questions:
    """The rows of a score matrix.

    Attributes:
        split: dataset/split.
        clips: clip_ids, the columns.
        texts: the texts as they were published: every caption of the first clip, those of the second, and so on, and
            then the queries of a relevance table that are no captions.
        read: the same as the model reads them.
        clip_of: ``[captions]`` the column of each caption's clip.
        direction: the one direction of which the scores are, where a re-ranker has judged the candidates of its queries
            alone: ``text_to_audio`` or ``audio_to_text``; None: of both.
    """

    split: str
    clips: list[str]
    texts: list[str]
    read: list[str]
    clip_of: np.ndarray[Any, np.dtype[np.int64]]
    direction: str | None = None

    @staticmethod
    def of(split: Split, table: Mapping[str, Any] | None, settings: DataSettings) -> Questions:
        """The questions of a split, and of a relevance table if there is one; ``settings`` say how texts are read."""
        known = {_spaced(text) for text in split.texts}
        more = [query for query in sorted(table or {}) if _spaced(query) not in known]
        read = [*split.captions, *(normalise(query, settings) for query in more)]
        return Questions(split.name, split.clips, [*split.texts, *more], read, split.clip_of)

    @staticmethod
    def of_queries(split: str, clips: Sequence[str], queries: Sequence[str], settings: DataSettings) -> Questions:
        """The questions of queries whose clips are not known, such as those of a challenge; each different one once."""
        texts = list(dict.fromkeys(queries))
        read = [normalise(query, settings) for query in texts]
        return Questions(split, list(clips), texts, read, np.zeros(0, np.int64))

    @property
    def captions(self) -> int:
        """How many of the rows are captions of clips."""
        return len(self.clip_of)

    def truth(self) -> Truth:
        """The truth for the captions: which clips are relevant."""
        return Truth.of(len(self.clips), self.clip_of, self.texts[: self.captions])


def multiple_of(questions: Questions, table: Mapping[str, Mapping[str, float]], file: object = None) -> Relevant:
    """The pairs of a relevance table as rows and columns of a score matrix.

    Raises:
        InputError: the table names clips that are not in the split, or queries that were not scored.
    """
    queries = sorted(table)
    columns = {clip.removeprefix(questions.split + "/"): number for number, clip in enumerate(questions.clips)}
    found = relevant_clips(queries, table, columns, file)
    known = {_spaced(text): row for row, text in reversed(list(enumerate(questions.texts)))}
    missing = [query for query in queries if _spaced(query) not in known]
    if missing:
        raise InputError(
            f"{len(missing)} queries of the relevance table were not scored",
            file=file,
            value=missing[0],
            remedy="make the scores with the same --relevance",
        )
    rows = np.array([known[_spaced(query)] for query in queries], np.int64)
    return Relevant.of(rows[found.query], found.item, found.gain)


def require_truth(questions: Questions, table: Mapping[str, Any] | None, file: object = None) -> None:
    """``InputError`` where neither captions nor a relevance table say which clips are right."""
    if not questions.captions and table is None:
        remedy = "name the relevant clips of the queries: --relevance CSV"
        raise InputError("these scores are of queries whose clips are not known", file=file, remedy=remedy)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def rank_all(
    blocks: Blocks,
    questions: Questions,
    multiple: Relevant | None = None,
    group: Group | None = None,
    by_clip: Blocks | None = None,
) -> dict[str, Ties]:
    """The ranks of relevant items in both directions.  Several processes may hold some rows each.

    Args:
        blocks: the rows of the matrix that this rank holds.
        questions: what the rows are.
        multiple: the pairs of a relevance table.
        group: the ranks; None: this process is alone.
        by_clip: the rows of the transposed matrix, where the clips' scores differ from the captions'.

    Returns:
        ``text_to_audio`` and ``audio_to_text``; where clips share captions also ``text_to_audio_equal`` and
        ``audio_to_text_equal``; with ``multiple`` also ``text_to_audio_multiple``.  Where the scores are of one
        direction, only that one's.
    """
    group = group or LocalGroup()
    truth, captions = questions.truth(), questions.captions
    if not captions:
        return {} if multiple is None else {MULTIPLE: _joined(group, rank_rows(blocks(), multiple))}
    wanted = {FORWARD: truth.own()} | ({f"{FORWARD}_equal": truth.equal()} if truth.shared else {})
    backward = {name.replace(FORWARD, BACKWARD): transposed(pairs) for name, pairs in wanted.items()}
    backward = {} if questions.direction == FORWARD else backward
    rows = {} if questions.direction == BACKWARD else {name: RowCounter(pairs) for name, pairs in wanted.items()}
    if multiple is not None and questions.direction != BACKWARD:
        rows[MULTIPLE] = RowCounter(multiple)
    seek = {} if by_clip else {name: ColumnScores(pairs) for name, pairs in backward.items()}
    for first, block in blocks():
        for row in rows.values():
            row.add(first, block)
        for column in seek.values():
            column.add(first, block[: max(0, captions - first)])
    found = {name: _joined(group, row.ties()) for name, row in rows.items()}
    if by_clip is not None:
        return found | {name: _joined(group, rank_rows(by_clip(), pairs)) for name, pairs in backward.items()}
    return found | (_columns(blocks, seek, questions, group) if seek else {})


def _columns(blocks: Blocks, seek: Mapping[str, ColumnScores], questions: Questions, group: Group) -> dict[str, Ties]:
    """The second pass: how many captions stand above those that are relevant to a clip."""
    counters = {}
    for name, column in seek.items():
        shares = np.stack(group.gather_objects(column.values, "scores of relevant captions"))
        values = np.where(np.isnan(shares), -np.inf, shares).max(axis=0)  # one rank has each of them
        counters[name] = ColumnCounter(column.relevant, values, len(questions.clips))
    for first, block in blocks():
        for counter in counters.values():
            counter.add(first, block[: max(0, questions.captions - first)])
    for counter in counters.values():
        parts = group.gather_objects((counter.above, counter.size), "ranks of relevant captions")
        counter.above, counter.size = (np.sum([part[i] for part in parts], axis=0) for i in range(2))
    return {name: counter.ties() for name, counter in counters.items()}


def _joined(group: Group, ties: Ties) -> Ties:
    return Ties.join(group.gather_objects(ties, "ranking of relevant items"))


def figures(found: Mapping[str, Ties], questions: Questions, multiple: Relevant | None = None) -> dict[str, Any]:
    """The figures of rankings from `rank_all`.

    Returns:
        ``{"split", "clips", "captions", "text_to_audio": metrics, "audio_to_text": metrics}``.  Where clips share
        captions, ``text_to_audio_equal`` has the figures with every clip of an equal caption being relevant, and
        ``text_to_audio_ceiling`` what ``text_to_audio`` reaches at most; the same for ``audio_to_text``.  With a
        relevance table ``text_to_audio_multiple``, which has nDCG where the table has grades, and ``queries``.
    """
    clips, captions = len(questions.clips), questions.captions
    result: dict[str, Any] = {"split": questions.split, "clips": clips, "captions": captions}
    for name, ties in found.items():
        result[name] = metrics(ties.ranking(captions if name.startswith(BACKWARD) else clips))
    truth = questions.truth()
    if truth.shared:
        ceilings = {FORWARD: truth.ceiling_of_clips, BACKWARD: truth.ceiling_of_captions}
        result |= {f"{name}_ceiling": _means(ceiling()) for name, ceiling in ceilings.items() if name in found}
    if multiple is not None and MULTIPLE in found:
        result["queries"] = len(np.unique(multiple.query))
        if multiple.gain is not None and len(np.unique(multiple.gain)) > 1:
            for k, values in graded(found[MULTIPLE], multiple, clips).items():
                result[MULTIPLE][k] = float(values.mean())
    return result


def graded(ties: Ties, relevant: Relevant, clips: int) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """nDCG@10 and nDCG@16 of each query of a relevance table with grades."""
    assert relevant.gain is not None
    order = np.lexsort((-relevant.gain, relevant.query))
    starts = np.flatnonzero(np.diff(relevant.query[order], prepend=-1))
    ideal = np.split(relevant.gain[order], starts[1:])
    ranking = ties.ranking(clips)
    return {f"nDCG@{k}": expected_ndcg(ranking, ties.gain, ideal, k) for k in PRECISION_AT}


def _means(ranking: Ranking) -> dict[str, float]:
    return {name: float(of_each_query(ranking)[name].mean()) for name in MEASURED}
