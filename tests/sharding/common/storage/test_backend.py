from __future__ import annotations

import os

from hypothesis import example, given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.common.storage.backend import checked

PARTS = st.sampled_from(["", ".", "..", "a", "b.wav", "..c", "d..", "\\..", "..\\", "\0"])


@given(st.one_of(st.text(), st.lists(PARTS).map("/".join)))
@example("a/../../escape")
@example("a\\..\\..\\b")
@example("..empty")
def test_a_name_is_refused_or_stays_in_its_folder(name: str) -> None:
    try:
        found = checked(name)
    except InputError as error:
        assert "climbs out" in error.what and error.value == name
        return
    assert found in ("", name)
    path = os.path.normpath(f"/folder/{found}")
    assert path == "/folder" or path.startswith("/folder/")


@given(st.lists(st.sampled_from(["a", "b.wav", "..c", "d.."]), min_size=1).map("/".join))
def test_ordinary_names_are_left_as_they_are(name: str) -> None:
    assert checked(name) == name
