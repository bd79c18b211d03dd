"""Sizes and times as people write and read them."""

from __future__ import annotations

import pytest

from sharding.common.sizes import quantity, show_hours


@pytest.mark.parametrize(
    ("hours", "text"),
    [(4.8e-6, "under 1 s"), (0.01, "36 s"), (0.5, "30 min"), (5.26, "5.3 h"), (72, "3.0 days")],
)
def test_times_have_the_unit_that_people_use(hours: float, text: str) -> None:
    assert show_hours(hours) == text


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (1, ("shard",), "1 shard"),
        (0, ("shard",), "0 shards"),
        (1234, ("clip",), "1,234 clips"),
        (1, ("query", "queries"), "1 query"),
        (2, ("query", "queries"), "2 queries"),
    ],
)
def test_one_thing_is_counted_in_the_singular(count: int, words: tuple[str, ...], text: str) -> None:
    assert quantity(count, *words) == text
