from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from sharding.sources.protected import DEFAULT_KEEP, DEFAULT_PROTECT, parse_protect


def test_protected_splits() -> None:
    assert ("clotho", "evaluation") in parse_protect(DEFAULT_PROTECT)
    assert parse_protect("mine/all, clotho/validation") == {("mine", "all"), ("clotho", "validation")}
    assert parse_protect("") == frozenset()
    for bad in ("clotho", "clotho/", "/test", "a/b/c"):
        with pytest.raises(InputError, match="not a protected split"):
            parse_protect(bad)
    with pytest.raises(InputError, match=r"clotho has no such split.*evalution"):
        parse_protect("clotho/evalution")


def test_published_evaluation_splits_are_protected_by_default() -> None:
    published = "clotho/validation clotho/evaluation audiocaps/val audiocaps/test tacos/test autoacd/val autoacd/test"
    published += " esc50/fold1 fsd50k/val fsd50k/eval epicsounds/validation hdepic/test"
    assert set(published.split()) <= set(DEFAULT_PROTECT.split(","))
    assert {("clotho", "development")} == DEFAULT_KEEP
