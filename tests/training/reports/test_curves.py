"""Curves of a run: nothing is drawn outside its chart, and nothing that was logged stands between the lines."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from training.reports.curves import MOST, chart, curve, training_charts, validation_charts, values_of

POINTS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3 * MOST)


@given(POINTS)
def test_every_point_lies_in_its_chart(values: list[float]) -> None:
    points = [(float(step), value) for step, value in enumerate(values)]
    found = chart("loss", {"loss": points}, (0, len(values) - 1))
    assert found is not None and len(found.curves[0].points) <= MOST
    for step, value in found.curves[0].points:
        assert 0 <= found.x(step) <= 1 and 0 <= found.y(value) <= 1


@given(POINTS)
def test_a_band_holds_every_value_that_its_means_are_made_of(values: list[float]) -> None:
    found = curve("loss", [(float(step), value) for step, value in enumerate(values)])
    if found.band:
        assert min(low for _, low, _ in found.band) == min(values)
        assert max(high for _, _, high in found.band) == max(values)
        slack = 1e-6 * max(map(abs, values))
        for (_, mean), (_, low, high) in zip(found.points, found.band, strict=True):
            assert low - slack <= mean <= high + slack


def test_one_leap_does_not_flatten_the_rest() -> None:
    values = [3.0 - step / 100 for step in range(200)]
    values[7] = 1e9
    found = chart("loss", {"loss": list(enumerate(values))}, (0, 199))
    assert found is not None and found.is_cut and found.high < 10


def test_values_that_are_no_numbers_are_left_out() -> None:
    records = [
        {"step": 0, "loss": None},
        {"step": 1, "loss": math.inf},
        {"step": "x", "loss": 1.0},
        {"step": 3, "loss": 2.0, "loss_parts": {"a": 1.0}, "validation": "none"},
        {"step": 4},
    ]
    assert values_of(records, "loss") == [(3.0, 2.0)] and values_of(records, "loss_parts/a") == [(3.0, 1.0)]
    assert [one.title for one in training_charts(records, [])] == ["loss"] and validation_charts(records, []) == []


def test_figures_of_a_validation_are_grouped_without_their_bounds() -> None:
    found = {"text_to_audio/R@1": 0.2, "text_to_audio/R@5": 0.4, "text_to_audio/chance_R@1": 0.1, "accuracy": 0.5}
    records = [{"step": 0, "loss": 1.0}, {"step": 5, "validation": found}]
    charts = validation_charts(records, [3])
    assert [(one.title, [each.name for each in one.curves]) for one in charts] == [
        ("text to audio", ["R@1", "R@5"]),
        ("accuracy", ["accuracy"]),
    ]
    assert charts[0].marks == [3] and (charts[0].first, charts[0].last) == (0, 5)


def test_terms_of_a_loss_are_shown_where_there_are_several() -> None:
    one = [{"step": 0, "loss": 1.0, "loss_parts": {"ntxent": 1.0}, "alignment": 0.3}]
    assert [each.title for each in training_charts(one, [])] == ["loss", "alignment"]
    two = [{"step": 0, "loss": 1.0, "loss_parts": {"ntxent": 0.7, "tokens": 0.3}}]
    assert len(training_charts(two, [])) == 3
