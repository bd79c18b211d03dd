from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.search.spans import spans_of


def spans(windows: list[tuple[str, float, float, float]], background: float = 0.0) -> list[tuple[int, float, float]]:
    found = spans_of(
        np.arange(len(windows)),
        np.array([window[3] for window in windows]),
        [window[0] for window in windows],
        np.array([window[1] for window in windows]),
        np.array([window[2] for window in windows]),
        background,
    )
    return [(span.row, span.start_s, span.end_s) for span in found]


def test_neighbours_that_answer_become_one_span() -> None:
    windows = [("a", 0, 10, 0.1), ("a", 10, 20, 0.8), ("a", 20, 30, 0.9), ("a", 30, 40, 0.2), ("b", 20, 30, 0.5)]
    assert spans(windows) == [(2, 10, 30), (4, 20, 30), (3, 30, 40), (0, 0, 10)]


def test_a_second_place_of_a_recording_is_a_hit_of_its_own() -> None:
    windows = [("a", 0, 10, 0.9), ("a", 10, 20, 0.1), ("a", 20, 30, 0.8)]
    assert spans(windows) == [(0, 0, 10), (2, 20, 30), (1, 10, 20)]


def test_what_overlaps_a_better_span_is_not_shown_again() -> None:
    windows = [("a", 0, 10, 0.9), ("a", 5, 15, 0.3), ("a", 10, 20, 0.1)]
    assert spans(windows) == [(0, 0, 10), (2, 10, 20)]


def test_equal_scores_keep_their_order() -> None:
    assert [row for row, *_ in spans([("a", 0, 1, 0.5), ("b", 0, 1, 0.5), ("c", 0, 1, 0.5)])] == [0, 1, 2]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.floats(-1, 1)), min_size=1, max_size=40))
def test_spans_never_overlap_and_hold_their_best_window(drawn: list[tuple[str, int, float]]) -> None:
    windows = [(name, float(start), start + 2.0, score) for name, start, score in drawn]
    found = spans(windows, min(window[3] for window in windows))
    for row, start, end in found:
        assert start <= windows[row][1] and windows[row][2] <= end
    for name in "ab":
        places = sorted((start, end) for row, start, end in found if windows[row][0] == name)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
    best = max(window[3] for window in windows)
    assert windows[found[0][0]][3] == best
