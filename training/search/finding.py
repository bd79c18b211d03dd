"""Find sounds in an index: by descriptions, by sounds, by what should not be heard, and by all of these together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sharding.common.errors import InputError
from training.search import CANDIDATES
from training.search.entries import Filter, values_at
from training.search.nearest import nearest
from training.search.spans import Span, spans_of
from training.search.store import SoundIndex

AWAY = 0.5  # how strongly what should not be heard counts, against 1 for what should
WINDOWS_A_HIT = 10  # windows that are looked at for each hit that is wanted, so that neighbours are among them
LEAST_WINDOWS = 100
KEPT_MASKS = 8  # of filters: people change their words more often than their filters
SHORTEST = 1e-12  # of a vector's length, so that silence divides by no zero
_SHOWN = ("clip_id", "dataset", "split", "path", "captions", "licence", "recording_s", "key", "shard", "audio")


@dataclass(frozen=True)
class Query:
    """What to look for: the mean of what should be heard, less ``AWAY`` times the mean of what should not.

    Attributes:
        texts: descriptions.
        sounds: vectors of sounds ``[d]``, from `Finder.sound_vector` or of entries of the index.
        without: descriptions of what should not be heard.
    """

    texts: tuple[str, ...] = ()
    sounds: tuple[np.ndarray, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.texts and not self.sounds:
            raise InputError("nothing to look for", remedy="describe a sound, or give one")
        empty = next((text for text in (*self.texts, *self.without) if not text.strip()), None)
        if empty is not None:
            raise InputError("a description has no words", value=empty, remedy="say what should be heard, or not")


@dataclass(frozen=True)
class Hit:
    """A place to listen to.

    Attributes:
        row: the entry with the best score.
        score: its score.
        start_s, end_s: the stretch of the recording.
        facts: the facts of the recording and of the sample that holds the entry.
    """

    row: int
    score: float
    start_s: float
    end_s: float
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The hit as plain JSON."""
        place = {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3)}
        return {"score": round(self.score, 6), **place, **self.facts, "entry": self.row}


class Model(Protocol):
    """What a search needs of a model: `training.search.models.WholeModel` and `text_tower.IndexModel` have it."""

    @property
    def exact(self) -> bool:
        """Whether dot products of vectors are the scores."""

    @property
    def longest_s(self) -> float:
        """The most seconds of a sound that are heard."""

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Vectors of descriptions, ``[texts, d]``."""

    def sound(self, wave: np.ndarray, rate: int, text: str | None = None, /) -> np.ndarray:
        """The vector ``[d]`` of a sound: mono float ``[n]`` at ``rate`` Hz; with a text, of both together."""

    def scores(self, texts: Sequence[str], rows: np.ndarray, /) -> np.ndarray:
        """Exact scores of some entries, ``[texts, rows]``."""


class Finder:
    """Searches an index.

    Args:
        index: the index.
        model: the model that it was made with.
    """

    def __init__(self, index: SoundIndex, model: Model) -> None:
        self.index, self.model = index, model
        self._mask = functools.lru_cache(KEPT_MASKS)(lambda among: among.mask(self.index.entries))

    def sound_vector(self, data: bytes, name: object, text: str | None = None) -> np.ndarray:
        """The vector ``[d]``, of length 1, of a sound file; ``name`` stands for it in errors.

        With a text, a multimodal language model reads it while it hears the sound, and the vector is that of both.
        What is beyond the model's longest input is not heard.
        """
        wave, rate = read_sound(data, name, self.model.longest_s)
        if not len(wave):
            raise InputError("the file holds no sound", file=name)
        return unit(self.model.sound(wave, rate, text))

    def entry_vector(self, row: int) -> np.ndarray:
        """The vector ``[d]``, of length 1, of an entry of the index."""
        if not 0 <= row < len(self.index.entries):
            raise InputError("the index has no such entry", value=row, remedy=f"it has {len(self.index.entries)}")
        return unit(np.array(self.index.vectors[row]))

    def find(self, query: Query, top: int = 10, among: Filter | None = None, candidates: int = CANDIDATES) -> list[Hit]:
        """The ``top`` places that answer the query best, best first.

        Args:
            query: what to look for.
            top: how many places are wanted.
            among: which entries may be found; None: all.
            candidates: windows, found by vectors, that a head with attention scores exactly.
        """
        for option, count in (("--top", top), ("--first", candidates)):
            if count < 1:
                raise InputError(f"{option} must be at least 1", value=count)
        entries, count = self.index.entries, max(LEAST_WINDOWS, WINDOWS_A_HIT * top)
        mask = None if among is None else self._mask(among)
        wanted = count if self.model.exact else max(count, candidates)
        rows, scores = nearest(self.index.vectors, self._vector(query), wanted, self.index.lists, mask)
        if not len(rows):
            return []
        if not self.model.exact:
            scores = self._exact(rows, query)
            order = np.lexsort((rows, -scores))[:count]
            rows, scores = rows[order], scores[order]
        return self._hits(rows, scores, top, len(entries) if mask is None else int(mask.sum()))

    def _vector(self, query: Query) -> np.ndarray:
        """The vector ``[d]`` whose dot products with the entries rank them."""
        pulls = list(query.sounds)
        if query.texts:
            pulls += list(self.model.texts(query.texts))
        vector = np.mean(pulls, axis=0)
        if query.without:
            vector = vector - AWAY * self.model.texts(query.without).mean(axis=0)
        return np.ascontiguousarray(vector, np.float32)

    def _exact(self, rows: np.ndarray, query: Query) -> np.ndarray:
        """The scores of some entries: of texts as the head computes them, of sounds the cosine of the vectors."""
        pulls = list(self.model.scores(query.texts, rows)) if query.texts else []
        if query.sounds:
            vectors = np.array(self.index.vectors[rows])
            lengths = np.maximum(np.linalg.norm(vectors, axis=1), SHORTEST)
            pulls += [vectors @ sound / lengths for sound in query.sounds]
        scores = np.mean(pulls, axis=0)
        if query.without:
            scores = scores - AWAY * self.model.scores(query.without, rows).mean(axis=0)
        return np.asarray(scores)

    def _hits(self, rows: np.ndarray, scores: np.ndarray, top: int, allowed: int) -> list[Hit]:
        """The spans of found windows, with their facts."""
        columns = {name: self.index.entries[name] for name in ("clip_id", "start_s", "end_s")}
        found = {name: values_at(column, rows.tolist()) for name, column in columns.items()}
        background = float(scores[min(len(scores), -(-allowed // 2)) - 1])
        spans = spans_of(
            rows,
            scores,
            found["clip_id"],
            np.array(found["start_s"]),
            np.array(found["end_s"]),
            background,
        )
        return [self._hit(span) for span in spans[:top]]

    def _hit(self, span: Span) -> Hit:
        entry = self.index.entries.slice(span.row, 1)
        facts = {name: entry[name][0].as_py() for name in _SHOWN}
        return Hit(span.row, span.score, span.start_s, span.end_s, facts)


def read_sound(data: bytes, name: object, seconds: float) -> tuple[np.ndarray, int]:
    """The first ``seconds`` of a sound file as mono float32 ``[n]``, and its rate.

    Raises:
        InputError: it is no sound file that decodes.
    """
    from sharding.audio import ERROR_CLASSES, AudioError, decode_segment  # they take long; descriptions need none

    if not data:
        raise InputError("the file is empty", file=name)
    try:
        wave, rate = decode_segment(data, 0.0, seconds)
    except AudioError as error:
        what = f"not a sound that can be read: {ERROR_CLASSES[error.error]}"
        raise InputError(what, file=name, value=error.detail) from error
    return wave, rate


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector with length 1; a vector of zeros stays what it is."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length else vector, np.float32)
