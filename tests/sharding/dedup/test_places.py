from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.progress import Progress
from sharding.dedup import spreading
from sharding.dedup.comparing import MARGIN_S, Comparison, MatchSettings, match_row, matches_table
from sharding.dedup.fingerprint import RATE
from sharding.dedup.places import Pair, Place, Search, _pieces, every_place, leaks, search
from sharding.dedup.spans import Span, outside
from sharding.dedup.spreading import QUIETLY, Spreader

LEAST_S = 2.0  # of a sound that a piece must hold, so that it is found there


@dataclass
class Recordings:
    """Where recordings hold protected sounds; a search finds one place of those that lie in its piece."""

    durations: dict[str, float]
    there: dict[Pair, list[float]]

    def find(self, one: Search) -> list[Place]:
        found = []
        for at in self.there[one.clip, one.other]:
            start = max(one.start_s, at + one.begin_s)
            end = min(one.start_s + one.duration_s, at + one.begin_s + one.length_s)
            if end - start >= LEAST_S:
                found.append(Place(at, end - start, 0.9))
        return found[len(found) // 2 :][:1]

    def spread(self, function: Callable[[Any], Any], items: Iterable[list[Search]]) -> Iterator[Any]:
        """Search as the workers of a runner do.  The results arrive in any order."""
        pieces = list(items)
        random.Random(len(pieces)).shuffle(pieces)
        return ([(one, self.find(one)) for one in piece] for piece in pieces)

    @property
    def compare(self) -> Comparison:
        return Comparison(lambda *_: np.zeros(0, np.float32), self.durations, MatchSettings())

    @property
    def known(self) -> dict[Pair, list[float]]:
        return {pair: places[:1] for pair, places in self.there.items()}

    def found_one_after_the_other(self) -> list[dict[str, Any]]:
        """The rows of a search stretch by stretch: the first stretch that is not clean is searched next."""
        rows = []
        for (clip, other), offsets in self.known.items():
            length, known, clean = self.durations[other], list(offsets), set[Span]()
            while todo := set(outside(self.durations[clip], [(at, at + length) for at in known])) - clean:
                stretch = min(todo)
                parts = [(a, b) for a in _pieces(*stretch) for b in _pieces(0.0, length)]
                found = [place for a, b in parts for place in self.find(Search(clip, *a, other, *b))]
                fresh = [place for place in found if all(abs(place.offset_s - at) >= MARGIN_S for at in known)]
                if not fresh:
                    clean.add(stretch)
                known += [place.offset_s for place in fresh]
                rows += [match_row(clip, other, "waveform", *place, "same") for place in fresh]
        return rows


@st.composite
def recordings(draw: st.DrawFn) -> Recordings:
    durations = {name: draw(st.floats(10, 2000)) for name in ("long", "short")}
    durations |= {name: draw(st.floats(2, 700)) for name in ("p/1", "p/2")}
    pairs = [(clip, other) for clip in ("long", "short") for other in ("p/1", "p/2")]
    offsets = {pair: st.floats(-durations[pair[1]], durations[pair[0]]) for pair in pairs}
    there = {pair: draw(st.lists(offsets[pair], min_size=1, max_size=8)) for pair in pairs}
    return Recordings(durations, there)


@settings(max_examples=150, deadline=None)
@given(recordings())
def test_what_is_found_does_not_depend_on_pieces_and_their_order_and_nothing_is_left(one: Recordings) -> None:
    rows = every_place(one.known, one.compare, Spreader(one.spread, QUIETLY))
    assert matches_table(rows).equals(matches_table(one.found_one_after_the_other()))
    for (clip, other), there in one.there.items():
        length = one.durations[other]
        found = [
            row["offset_s"] if row["a"] == clip else -row["offset_s"]
            for row in rows
            if {row["a"], row["b"]} == {clip, other}
        ]
        for stretch in outside(one.durations[clip], [(at, at + length) for at in [there[0], *found]]):
            for piece in _pieces(*stretch):
                assert not [
                    place for part in _pieces(0.0, length) for place in one.find(Search(clip, *piece, other, *part))
                ]


def test_a_long_recording_is_many_pieces_of_work_and_shows_them() -> None:
    one = Recordings({"long": 10_800.0, "p": 30.0}, {("long", "p"): [4000.0]})
    seen: list[tuple[int, int | None]] = []

    def begin(what: str, total: int | None, unit: str) -> Progress:
        return Progress(what, total, unit, lambda now: seen.append((now.done, now.total)), quiet=True)

    every_place(one.known, one.compare, Spreader(one.spread, begin))
    assert seen[0] == (0, 0) and seen[-1] == (38, 38) and len(seen) > 9  # pieces of 300 s, each takes about 0.7 s
    assert max(after - before for (before, _), (after, _) in itertools.pairwise(seen)) <= 4


def noise(seconds: float, seed: int) -> np.ndarray:
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return 0.1 * wave * (1.2 + np.sin(np.arange(len(wave), dtype=np.float32) / 3000))


def test_sound_is_found_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "PIECE_S", 0.0)
    held = noise(4, 0)
    clips = {"held": held, "long": np.concatenate([noise(3, 1), held, noise(6, 2), held, noise(2, 3)])}

    def wave(clip_id: str, start_s: float, duration_s: float) -> np.ndarray:
        start = round(start_s * RATE)
        return clips[clip_id][start : start + round(duration_s * RATE)]

    compare = Comparison(wave, {clip_id: len(w) / RATE for clip_id, w in clips.items()}, MatchSettings())
    (row,) = every_place({("long", "held"): [3.0]}, compare, Spreader(map, QUIETLY))
    assert (row["a"], row["b"], row["outcome"]) == ("held", "long", "same")
    assert row["offset_s"] == pytest.approx(-13, abs=0.02)
    assert search([Search("long", 8.0, 4.5, "held", 0.0, 4.0)], compare) == [[]]


def test_leaks_are_pairs_of_a_protected_clip_and_another_one_that_are_not_both_old() -> None:
    rows = [
        match_row("a", "p", "waveform", 3.0, 5.0, 0.9, "same"),
        match_row("p", "z", "pcm", -2.0, 5.0, 1.0, "same"),
        match_row("a", "z", "waveform", 3.0, 5.0, 0.9, "same"),
        match_row("b", "p", "waveform", 3.0, 5.0, 0.9, "undecided"),
        match_row("c", "p", "identity", 3.0, 5.0, 0.9, "same"),
        match_row("o", "p", "waveform", 3.0, 5.0, 0.9, "same"),
    ]
    assert leaks(rows, {"p"}, {"o", "p"}) == {("a", "p"): [3.0], ("z", "p"): [2.0]}
