from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.search.page.words import parse_words


@pytest.mark.parametrize(
    ("typed", "text", "without"),
    [
        ("a dog  barks", "a dog barks", ()),
        ("dog -rain", "dog", ("rain",)),
        ('-birds water -"a  loud engine" drips', "water drips", ("birds", "a loud engine")),
        ("a drive-by, rock - roll", "a drive-by, rock - roll", ()),
        ('dog -"" -" " -', "dog -", ()),
        ("--not dog", "--not dog", ()),
        ("", "", ()),
    ],
)
def test_a_minus_before_a_word_means_that_it_should_not_be_heard(
    typed: str, text: str, without: tuple[str, ...]
) -> None:
    assert parse_words(typed) == (text, without)


@given(st.text())
def test_any_text_can_be_typed(typed: str) -> None:
    text, without = parse_words(typed)
    assert text == " ".join(text.split()) and all(one.strip() for one in without)
