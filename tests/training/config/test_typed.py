"""Plain trees into dataclasses: what each type takes, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from training.config.origin import Location, Origin
from training.config.typed import from_tree


@dataclass(frozen=True)
class Inner:
    name: str
    size: int = 1

    def __post_init__(self) -> None:
        if self.size > 9:
            raise InputError("size must be a digit", value=self.size)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float = 1.0
    choice: Literal["one", "two", 3] = "one"
    perhaps: int | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[Inner, ...] = ()
    named: dict[str, float] = field(default_factory=dict)
    flag: bool = False


def read(tree: Any) -> Outer:
    origins = {
        ("inner",): Origin("file", 7),
        ("many", "1"): Origin("file", 9),
        ("many", "1", "size"): Origin("file", 10),
    }
    origins[("inner", "size")] = Origin("--set inner.size=10")
    result: Outer = from_tree(Outer, tree, Location("file", (), origins))
    return result


def test_a_tree_of_the_declared_types_is_taken() -> None:
    tree = {
        "inner": {"name": "a"},
        "rate": "2e-5",  # YAML 1.1 reads this as text
        "choice": 3,
        "perhaps": None,
        "pair": [1, 2],
        "many": [{"name": "b", "size": 2}],
        "named": {"x": 1},
        "flag": True,
    }
    assert read(tree) == Outer(Inner("a"), 2e-5, 3, None, (1.0, 2.0), (Inner("b", 2),), {"x": 1.0}, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": True}, "rate must be a number"),
        ({"rate": "quick"}, "rate must be a number"),
        ({"rate": float("nan")}, "rate must be a number"),
        ({"rate": 10**400}, "rate must be a number"),
        ({"choice": "tow"}, "did you mean 'two'"),
        ({"choice": "3"}, "choice has no such choice"),
        ({"choice": [1]}, "choice has no such choice"),
        ({"perhaps": 1.0}, "perhaps must be a whole number"),
        ({"perhaps": 2**63}, "perhaps must be a whole number"),
        ({"pair": [1]}, "pair must have 2 items"),
        ({"pair": "ab"}, "pair must be a list"),
        ({"many": [{"name": "b"}, {"name": 1}]}, "row 9: many.1.name must be text"),
        ({"named": {"x": "y"}}, "named.x must be a number"),
        ({"named": {1: 2.0}}, "named must be a mapping"),
        ({"flag": 1}, "flag must be true or false"),
        ({"inner": {"name": "a", "size": 10}}, "^--set inner.size=10: inner: size must be a digit"),
        ({"many": [{"name": "a"}, {"name": "b", "size": 10}]}, "row 10: many.1: size must be a digit"),
        ({"inner": {}}, "row 7: the key inner.name is missing"),
        ({"inner": {"name": "a", "sise": 1}}, "did you mean 'size'"),
        ({"inner": None}, "the key inner.name is missing"),
    ],
)
def test_other_values_are_refused_by_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read({"inner": {"name": "a"}} | change)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), below, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*Outer.__dataclass_fields__, "other"])


@given(st.dictionaries(KEYS, PLAIN | st.fixed_dictionaries({"name": st.text(max_size=3)}), max_size=8) | PLAIN)
def test_any_tree_becomes_a_value_or_an_input_error(tree: Any) -> None:
    try:
        found = read(tree)
    except InputError:
        return
    assert isinstance(found, Outer) and isinstance(found.rate, float) and isinstance(found.inner, Inner)
