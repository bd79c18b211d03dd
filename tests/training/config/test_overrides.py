"""``--set key.path=value``."""

from __future__ import annotations

from typing import Any

import pytest

from sharding.common.errors import InputError
from training.config.loading import load_recipe
from training.config.overrides import apply_override


def test_a_key_is_set_below_missing_and_empty_sections() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}, "c": None}
    assert apply_override(tree, "a.b={x: [1, 2]}") == ("a", "b")
    assert apply_override(tree, "c.d=text=with an equals sign") == ("c", "d")
    apply_override(tree, "e.f.g=")
    assert tree == {"a": {"b": {"x": [1, 2]}}, "c": {"d": "text=with an equals sign"}, "e": {"f": {"g": None}}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "must read KEY=VALUE"),
        ("=1", "must read KEY=VALUE"),
        ("a..b=1", "must read KEY=VALUE"),
        ("a.b.c=1", "'b' has no keys below it"),
        ("a=[1", "--set a=.*not YAML"),
        ("a=2026-13-01", "--set a=.*not YAML"),
        ("a=" + "[" * 100_000, "levels deep"),
    ],
)
def test_other_forms_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_override({"a": {"b": 1}}, override)


def test_a_recipe_that_is_no_mapping_cannot_be_overridden() -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        apply_override(["a list"], "seed=1")


def test_an_error_names_the_override_and_not_the_file() -> None:
    with pytest.raises(InputError, match=r"^--set data\.train=\[\{splt: a/b\}\]: unknown key data\.train\.0\.splt"):
        load_recipe("demo", ["data.train=[{splt: a/b}]"])
    with pytest.raises(InputError, match=r"demo\.yaml, row \d+: .*weight_decay"):
        load_recipe("demo", ["optimizer.name=adam"])


def test_an_unknown_section_names_the_override_that_made_it() -> None:
    with pytest.raises(InputError, match=r"^--set optimzer\.lr=1: unknown key optimzer"):
        load_recipe("dual_encoder_small", ["optimzer.lr=1"])
