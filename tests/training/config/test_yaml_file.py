"""YAML files: rows of keys, and files that must be refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from training.config.yaml_file import leaves, parse_yaml, read_yaml


def test_every_key_has_its_row() -> None:
    tree, rows = parse_yaml("a: 1\nb:\n  c:\n    - {d: 2}\n    - e: 3\n", "file")
    assert tree == {"a": 1, "b": {"c": [{"d": 2}, {"e": 3}]}}
    assert rows == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", "0", "d"): 4, ("b", "c", "1", "e"): 5}


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"row 2: the key seed is given twice"):
        parse_yaml("seed: 1\nseed: 2\n", "file")
    with pytest.raises(InputError, match=r"row 4: the key data.train.0.split is given twice"):
        parse_yaml("data:\n  train:\n    - {split: a,\n       split: b}\n", "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 2026-13-01\n", "not YAML"),
        ("seed: 1\x1f", "not YAML: unacceptable character"),
        ("a: [1, 2\n", r"row 2: not YAML"),
        ("a: &x {b: *x}\n", "more than 50 levels deep"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 levels deep"),
        ("[" * 100_000, "levels deep"),
        ("a: !!python/object:os.system {}\n", "not YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_yaml(text, "file")


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_aliases_that_stand_for_thousands_of_millions_of_values_are_refused_at_once(merge: str) -> None:
    bomb = "a0: &a0 {x: 1, y: 2}\n"
    bomb += "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40))
    if merge:
        bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
    began = time.monotonic()
    with pytest.raises(InputError, match=r"row \d+: there are more than 10000 values"):
        parse_yaml(bomb, "file")
    assert time.monotonic() - began < 5


def test_two_aliases_of_one_value_are_two_values() -> None:
    tree, _ = parse_yaml("a: &x {b: 1}\nc: *x\n", "file")
    tree["a"]["b"] = 2
    assert tree["c"] == {"b": 1}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"recipe\.yaml: cannot be read as text"):
        read_yaml(file)
    with pytest.raises(InputError, match="cannot be read as text"):
        read_yaml(tmp_path)
    file.write_text("")
    assert read_yaml(file) == ({}, {})


def test_leaves_name_every_value() -> None:
    assert leaves({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}


def test_a_number_of_base_sixty_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: " + ":".join(["59"] * 300) + ".5\n")
    with pytest.raises(InputError, match="not YAML"):
        read_yaml(file)
