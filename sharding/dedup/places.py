"""Every place where a clip holds the sound of a protected one, so that all of them can be cut out of it.

What is left of a clip is searched in rounds, until a round finds nothing new.  A round searches every stretch that no
protected sound covers, piece by piece; the pieces of all clips are independent, so any runner spreads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from sharding.dedup.comparing import MARGIN_S, Comparison, compare_waves, held_sound, match_row
from sharding.dedup.grouping import SOUND_METHODS
from sharding.dedup.spans import Span, outside
from sharding.dedup.spreading import Spreader

PIECE_S, OVERLAP_S = 300.0, 10.0  # of a clip that are searched at once, and that two pieces share
_HELD = 4  # pieces of clips that a worker keeps, 10 MB each
_COST = 0.002  # seconds of processor time for each second of sound that is read for a search
Pair = tuple[str, str]  # a clip, and a protected one of which it holds sound


class Search(NamedTuple):
    """A piece of a clip in which a piece of a protected clip is sought; times in seconds."""

    clip: str
    start_s: float
    duration_s: float
    other: str
    begin_s: float
    length_s: float


class Place(NamedTuple):
    """Where a protected clip was found: where its beginning stands in the clip, and the verdict."""

    offset_s: float
    overlap_s: float
    score: float


def leaks(rows: list[dict], protected: Collection[str], old: Collection[str]) -> dict[Pair, list[float]]:
    """For each pair with the same sound: where the protected clip begins in the other; not for two old clips."""
    found: dict[Pair, list[float]] = defaultdict(list)
    for row in rows:
        if (
            row["method"] in SOUND_METHODS
            and row["outcome"] == "same"
            and (row["a"] in protected) != (row["b"] in protected)
        ):
            if row["b"] in protected:
                found[row["a"], row["b"]].append(row["offset_s"])
            else:
                found[row["b"], row["a"]].append(-row["offset_s"])
    return {pair: offsets for pair, offsets in sorted(found.items()) if not all(clip in old for clip in pair)}


def every_place(known: Mapping[Pair, list[float]], compare: Comparison, spreader: Spreader) -> list[dict]:
    """MATCHES rows of the places where a clip holds a protected one, besides those that are known.

    Args:
        known: see ``leaks``.
        compare: reads and compares sound.
        spreader: spreads the searches, and shows them.
    """
    places = {pair: list(offsets) for pair, offsets in known.items()}
    clean: set[tuple[Pair, Span]] = set()
    rows: list[dict] = []
    progress = spreader.begin("match (every place)", 0, "stretches")
    while todo := _searches(places, clean, compare.durations):
        assert progress.total is not None
        progress.total += len(todo)
        seen = dict(spreader.each(progress, partial(search, compare=compare), todo, _seconds))
        found: dict[tuple[Pair, Span], list[Place]] = defaultdict(list)
        for one, owner in todo.items():
            found[owner] += [Place(*place) for place in seen[one]]
        for (pair, stretch), there in found.items():
            fresh = [place for place in there if all(abs(place.offset_s - at) >= MARGIN_S for at in places[pair])]
            if not fresh:
                clean.add((pair, stretch))
            places[pair] += [place.offset_s for place in fresh]
            rows += [match_row(*pair, "waveform", *place, "same") for place in fresh]
    progress.finish()
    return rows


def _searches(
    places: Mapping[Pair, list[float]], clean: Collection[tuple[Pair, Span]], durations: Mapping[str, float]
) -> dict[Search, tuple[Pair, Span]]:
    """The searches that are still needed, each with the pair and the stretch to which it belongs."""
    found = {}
    for (clip, other), offsets in places.items():
        length = durations[other]
        for stretch in outside(durations[clip], [(at, at + length) for at in offsets]):
            owner = (clip, other), stretch
            if owner not in clean:
                for piece in _pieces(*stretch):
                    for part in _pieces(0.0, length):
                        found[Search(clip, *piece, other, *part)] = owner
    return found


def _pieces(start: float, end: float) -> Iterator[tuple[float, float]]:
    """(begin, length) of pieces that overlap, so that a place between two lies in one of them."""
    while end - start > PIECE_S:
        yield start, PIECE_S
        start += PIECE_S - OVERLAP_S
    yield start, end - start


def _seconds(one: Search) -> float:
    return _COST * (one.duration_s + one.length_s)


def search(work: list[Search], compare: Comparison) -> list[list[Place]]:
    """The places that each search finds; not all of them, where there are several."""
    wave = lru_cache(_HELD)(held_sound(compare))  # neighbours in a list of searches share a piece of a clip
    found = []
    for one in work:
        first = wave(one.clip, one.start_s, one.duration_s)
        second = wave(one.other, one.begin_s, one.length_s)
        rows = compare_waves(first, second, compare.settings).to_pylist()
        found.append(
            [
                Place(one.start_s + row["offset_s"] - one.begin_s, row["overlap_s"], row["score"])
                for row in rows
                if row["outcome"] == "same"
            ]
        )
    return found
