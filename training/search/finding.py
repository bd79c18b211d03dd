"""Find sounds in an index: by descriptions, by sounds, by what should not be heard, and by all of these together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.objectives.pairs.tiled import score_all
from training.search import CANDIDATES
from training.search.building import fingerprint, first_stage, is_exact
from training.search.entries import Filter
from training.search.nearest import nearest
from training.search.spans import Span, spans_of
from training.search.store import SoundIndex

AWAY = 0.5  # how strongly what should not be heard counts, against 1 for what should
WINDOWS_A_HIT = 10  # windows that are looked at for each hit that is wanted, so that neighbours are among them
LEAST_WINDOWS = 100
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
        if not all(text.strip() for text in (*self.texts, *self.without)):
            raise InputError("a description has no words", value=(*self.texts, *self.without))


@dataclass(frozen=True)
class Hit:
    """A place to listen to.

    Attributes:
        row: the entry with the best score.
        score: its score.
        start_s, end_s: the stretch of the recording.
        facts: of the recording and of the sample that holds the entry.
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


class Finder:
    """Searches an index with the model that it was made with.

    Args:
        index: the index.
        retriever: the model.

    Raises:
        InputError: the index was made with another model.
    """

    def __init__(self, index: SoundIndex, retriever: Retriever) -> None:
        if fingerprint(retriever) != index.about["model"]:
            raise InputError(
                "the index was made with another model",
                file=index.folder,
                value=index.about["model_path"],
                remedy="name that model with --model, or make an index with this one",
            )
        self.index, self.retriever = index, retriever
        self._head = retriever.model.head
        silence = np.zeros(retriever.audio_input.segment, np.float32)
        # A first stage looks at texts alone and at sounds alone; these stand for the other one.
        self._any_sound, self._any_text = retriever.encode_wave(silence), retriever.encode_texts(["a sound"])

    def sound_vector(self, wave: np.ndarray, rate: int) -> np.ndarray:
        """The vector ``[d]``, of length 1, of a sound: mono float ``[n]`` at ``rate`` Hz.

        What is beyond the model's longest input is not heard.
        """
        audio = self.retriever.audio_input
        wave = np.asarray(wave, np.float32)[: int(audio.max_s * rate) + 1]
        if not len(wave):
            raise InputError("the sound is empty")
        if rate != audio.rate:
            wave = soxr.resample(wave, rate, audio.rate, quality="HQ")
        side = self.retriever.encode_wave(wave if len(wave) else np.zeros(1, np.float32))
        return unit(first_stage(self._head, self._any_text, side)[1][0].cpu().numpy())

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
        if top < 1 or candidates < 1:
            raise InputError("--top and --first count from 1", value=(top, candidates))
        entries, count = self.index.entries, max(LEAST_WINDOWS, WINDOWS_A_HIT * top)
        sides = [self.retriever.encode_texts(list(texts)) if texts else None for texts in (query.texts, query.without)]
        mask = None if among is None else among.mask(entries)
        vector = self._vector(query, sides)
        exact = is_exact(self._head, self._any_text)
        wanted = count if exact else max(count, candidates)
        rows, scores = nearest(self.index.vectors, vector, wanted, self.index.lists, mask)
        if not len(rows):
            return []
        if not exact:
            scores = self._exact(rows, query, sides)
            order = np.lexsort((rows, -scores))[:count]
            rows, scores = rows[order], scores[order]
        return self._hits(rows, scores, top, len(entries) if mask is None else int(mask.sum()))

    def _vector(self, query: Query, sides: Sequence[Side | None]) -> np.ndarray:
        """The vector ``[d]`` whose dot products with the entries rank them."""
        pulls = list(query.sounds)
        if sides[0] is not None:
            pulls += list(first_stage(self._head, sides[0], self._any_sound)[0].cpu().numpy())
        vector = np.mean(pulls, axis=0)
        if sides[1] is not None:
            away = first_stage(self._head, sides[1], self._any_sound)[0].cpu().numpy()
            vector = vector - AWAY * away.mean(axis=0)
        return np.ascontiguousarray(vector, np.float32)

    def _exact(self, rows: np.ndarray, query: Query, sides: Sequence[Side | None]) -> np.ndarray:
        """The scores of some entries: of texts as the head computes them, of sounds the cosine of the vectors."""
        device = self.retriever.device
        audio = tuple(torch.from_numpy(np.array(side[rows])).to(device) for side in self.index.sides)
        found = [None if side is None else score_all(self._head, side, audio).float().cpu().numpy() for side in sides]
        pulls = [] if found[0] is None else list(found[0])
        if query.sounds:
            vectors = np.array(self.index.vectors[rows])
            lengths = np.maximum(np.linalg.norm(vectors, axis=1), SHORTEST)
            pulls += [vectors @ sound / lengths for sound in query.sounds]
        scores = np.mean(pulls, axis=0)
        return np.asarray(scores if found[1] is None else scores - AWAY * found[1].mean(axis=0))

    def _hits(self, rows: np.ndarray, scores: np.ndarray, top: int, allowed: int) -> list[Hit]:
        """The spans of found windows, with their facts."""
        found = self.index.entries.select(["clip_id", "start_s", "end_s"]).take(rows)
        background = float(scores[min(len(scores), -(-allowed // 2)) - 1])
        spans = spans_of(
            rows,
            scores,
            found["clip_id"].to_pylist(),
            found["start_s"].to_numpy(),
            found["end_s"].to_numpy(),
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
    try:
        wave, rate = decode_segment(data, 0.0, seconds)
    except AudioError as error:
        raise InputError(f"not a sound that can be read: {error}", file=name) from error
    return wave, rate


def read_sound_file(path: Path, seconds: float) -> tuple[np.ndarray, int]:
    """As `read_sound`, from a file."""
    try:
        return read_sound(path.read_bytes(), path, seconds)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector with length 1; a vector of zeros stays what it is."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length else vector, np.float32)
