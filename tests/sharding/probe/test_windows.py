"""Where long recordings are cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sharding.probe.windows import Cutter, WindowRule

RULES = st.builds(WindowRule, st.integers(1, 40), st.integers(1, 60), st.integers(0, 40))


@given(rule=RULES, frames=st.integers(0, 500))
def test_windows_lose_nothing_where_they_touch(rule: WindowRule, frames: int) -> None:
    windows = rule.cut(frames)
    assert windows[0][0] == 0 and [start for start, _ in windows] == [n * rule.hop for n in range(len(windows))]
    assert all(length == rule.length for _, length in windows[:-1])
    if rule.hop <= rule.length:
        assert sum(windows[-1]) == frames
    if len(windows) > 1:
        assert frames - max(windows[-2][0] + rule.length, windows[-1][0]) >= rule.tail


@given(rule=RULES, frames=st.integers(0, 300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_cutting_blocks_follows_the_rule(rule: WindowRule, frames: int, cuts: list[int]) -> None:
    samples = np.arange(frames, dtype=np.int16)[:, None]
    cutter, found = Cutter(rule, 1), []
    for block in np.split(samples, sorted(min(cut, frames) for cut in cuts)):
        found += [(start, window.copy()) for start, window in cutter.push(block)]
    found.append(cutter.finish())
    assert [(start, len(window)) for start, window in found] == rule.cut(frames)
    assert all(np.array_equal(window[:, 0], np.arange(start, start + len(window))) for start, window in found)


@given(length=st.integers(1, 40), tail=st.integers(0, 40))
def test_a_second_window_begins_where_a_tail_of_new_sound_follows(length: int, tail: int) -> None:
    rule = WindowRule(length, length, tail)
    least = max(tail, 1)
    assert rule.cut(length + least - 1) == [(0, length + least - 1)]
    assert rule.cut(length + least) == [(0, length), (length, least)]


@given(length=st.integers(1, 20), gap=st.integers(1, 20), tail=st.integers(0, 20))
def test_a_window_after_a_gap_begins_where_a_tail_follows_its_begin(length: int, gap: int, tail: int) -> None:
    rule, hop, least = WindowRule(length, length + gap, tail), length + gap, max(tail, 1)
    assert rule.cut(hop + least - 1) == [(0, length)]
    assert rule.cut(hop + least) == [(0, length), (hop, min(length, least))]


def test_a_recording_without_samples_is_one_empty_window() -> None:
    start, window = Cutter(WindowRule(10, 10, 2), 2).finish()
    assert start == 0 and window.shape == (0, 2)
