from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.engine.sealed import sealed, unsealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES, max_size=4)


@settings(deadline=None)
@given(TREES)
def test_what_was_sealed_is_read_back(tree: dict[str, Any]) -> None:
    assert unsealed(sealed(tree)) == tree


@settings(deadline=None)
@given(st.data())
def test_no_byte_changes_unnoticed(data: st.DataObject) -> None:
    whole = sealed({"format": 2, "name": "dual", "values": [1.5, None, "é"]}).encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    with pytest.raises(ValueError, match=r".*"):
        unsealed((whole[:place] + bytes([other]) + whole[place + 1 :]).decode())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}', "[" * 100000, '{"a": NaN}'])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        unsealed(text)
