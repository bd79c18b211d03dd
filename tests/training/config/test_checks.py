"""The checks that settings make of themselves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive, nearest, require

SETTINGS = SimpleNamespace(width=6, heads=4, none=None, zero=0, drop=0.5, one=1.0)


def test_values_in_range_pass() -> None:
    require(True, "nothing", None)
    check_positive(SETTINGS, "width", "none")
    check_dropout(SETTINGS, "drop", "zero")
    check_multiple(SimpleNamespace(width=8, heads=4), "width")


def test_other_values_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"zero must be positive \(found 0\)"):
        check_positive(SETTINGS, "width", "zero")
    with pytest.raises(InputError, match=r"one must be in \[0, 1\)"):
        check_dropout(SETTINGS, "one")
    with pytest.raises(InputError, match="width must be a multiple of heads"):
        check_multiple(SETTINGS, "width")


def test_only_a_similar_word_is_suggested() -> None:
    assert nearest("epoch", ["epochs", "steps"]) == "did you mean 'epochs'? "
    assert nearest("xyz", ["epochs", "steps"]) == ""
