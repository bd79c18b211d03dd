"""Text from data cannot act on the terminal that shows it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.terminal import page, printable
from tests.conftest import REPOSITORY

CLEAR_SCREEN = "\x1b[2J"


@given(st.text(st.characters()))
def test_printable_text_is_one_line_of_characters_that_are_shown_as_themselves(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char.isspace() for char in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # it holds no half of a character
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog barks", "a dog barks"),
        ("Zoë hört 犬の声", "Zoë hört 犬の声"),
        (f"a dog{CLEAR_SCREEN}", "a dog\\x1b[2J"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\x9b2J", "\\x9b2J"),  # the same as an escape and a bracket, in one character
        ("gnp.\u202egod", "gnp.\\u202egod"),  # reverses what follows
        ("half \udcff", "half \\udcff"),
    ],
)
def test_only_what_is_not_shown_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_line_of_a_page_cannot_become_two() -> None:
    assert page(["one\ntwo", "three"]) == "one\\ntwo\nthree"


PROGRAM = """
import sys
from sharding.common import commandline
from sharding.common.commandline import Command
commands = {"say": Command("Say", "tests.sharding.common.say", "say it")}
sys.exit(commandline.main("program", "about", commands, sys.argv[1:]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("words", [["say"], ["say", "--fail"], ["say", "--json"]])
def test_a_command_prints_any_text_in_any_locale(encoding: str, words: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=REPOSITORY,
        env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert found.returncode == (2 if "--fail" in words else 0), found.stderr
    assert b"Traceback" not in found.stderr and b"\x1b" not in found.stdout + found.stderr
    assert b"half" in found.stdout + found.stderr
