import math

from hypothesis import given
from hypothesis import strategies as st

from sharding.dedup.spans import GRID_HZ, LEAST_S, MARGIN_S, outside

times = st.floats(-50, 150)
spans = st.lists(st.tuples(times, st.one_of(times, st.just(math.inf))).filter(lambda span: span[0] <= span[1]))


def test_stretches_between_spans_keep_the_margin() -> None:
    assert outside(30.0, [(-5.0, 3.0), (20.0, 24.0)]) == [(4.0, 19.0), (25.0, 30.0)]
    assert outside(30.0, [(20.0, 24.0), (-5.0, 3.0)]) == [(4.0, 19.0), (25.0, 30.0)]


def test_without_spans_the_whole_clip_is_free() -> None:
    assert outside(30.00012, []) == [(0.0, 30.00012)]
    assert outside(LEAST_S - 0.001, []) == []


def test_a_span_without_an_end_leaves_nothing_after_it() -> None:
    assert outside(30.0, [(12.0, math.inf)]) == [(0.0, 11.0)]
    assert outside(30.0, [(-math.inf, math.inf)]) == []


def test_a_stretch_of_exactly_the_least_length_counts() -> None:
    assert outside(30.0, [(LEAST_S + MARGIN_S, 30.0)]) == [(0.0, LEAST_S)]
    assert outside(30.0, [(LEAST_S + MARGIN_S - 0.001, 30.0)]) == []


def test_borders_are_rounded_to_milliseconds_away_from_the_spans() -> None:
    assert outside(30.0, [(0.0, 2.00012), (20.00087, 30.0)]) == [(3.001, 19.0)]
    assert outside(30.0, [(0.0, 2.0004), (9.0009, 30.0)]) == []  # 5.0005 s, but 4.999 s between whole milliseconds


@given(st.floats(0, 100), spans)
def test_no_stretch_comes_near_a_span_and_none_is_missed(duration: float, spans: list[tuple[float, float]]) -> None:
    found = outside(duration, spans)
    assert found == sorted(found)
    for start, end in found:
        assert start >= 0 and end <= duration and end - start >= LEAST_S
        assert all(end <= first - MARGIN_S or start >= last + MARGIN_S for first, last in spans)
        assert start == round(start, 3) and (end == duration or end == round(end, 3))
    for second in range(int(duration)):  # a moment with enough free time on both sides lies in a stretch
        around = max(0.0, second - LEAST_S), min(duration, second + LEAST_S)
        free = all(around[1] < first - MARGIN_S or around[0] > last + MARGIN_S for first, last in spans)
        if free and around[1] - around[0] >= LEAST_S + 2 / GRID_HZ:
            assert any(start <= second <= end for start, end in found)
