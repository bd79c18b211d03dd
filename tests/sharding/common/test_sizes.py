"""Sizes and times as people write and read them."""

from __future__ import annotations

import pytest

from sharding.common.sizes import show_hours


@pytest.mark.parametrize(
    ("hours", "text"),
    [(4.8e-6, "under 1 s"), (0.01, "36 s"), (0.5, "30 min"), (5.26, "5.3 h"), (72, "3.0 days")],
)
def test_times_have_the_unit_that_people_use(hours: float, text: str) -> None:
    assert show_hours(hours) == text
