"""The small files of the work folder say what they were given, and differences are named by their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.build.state import Marker, differences
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work

VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
SETTINGS = st.recursive(
    VALUES, lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=3), max_leaves=8
)


@given(former=SETTINGS, now=SETTINGS)
def test_settings_differ_in_both_directions_or_not_at_all(former: Any, now: Any) -> None:
    assert bool(list(differences(former, now))) == bool(list(differences(now, former)))
    assert list(differences(now, now)) == []


def test_a_difference_names_the_key_and_both_values() -> None:
    former, now = {"plan": {"shard_bytes": 1}, "roots": {}}, {"plan": {"shard_bytes": 2}, "roots": {"clotho": "/c"}}
    assert list(differences(former, now)) == [
        "plan.shard_bytes: 1 there, 2 now",
        "roots.clotho: not set there, '/c' now",
    ]


def test_a_difference_of_long_lists_names_only_what_differs() -> None:
    former = {"protect": [["clotho", "evaluation"], ["tacos", "test"]]}
    now = {"protect": [["tacos", "test"], ["mine", "test"]]}
    assert list(differences(former, now)) == ["protect: only there: clotho/evaluation; only now: mine/test"]
    assert list(differences({"exclude": ["a", "b"]}, {"exclude": ["b", "a"]})) == [
        "exclude: ['a', 'b'] there, ['b', 'a'] now"
    ]


def test_a_marker_is_read_as_it_was_written(tmp_path: Path) -> None:
    work, marker = Storage(tmp_path), Marker(["a", "b"], 3, {"a": ["a remark"], "b": []}, "missing")
    work.write(Work.MARKER, marker.as_bytes())
    assert Marker.read(work) == marker
    work.write(Work.MARKER, b'{"datasets": ["a"]}')
    with pytest.raises(InputError, match=r"catalogue\.json.*generation is missing"):
        Marker.read(work)
