"""Captions: their spelling, their tokens, and which of several is used."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.data.letters import Letters
from training.data.captions import choose_caption, normalise, tokenise
from training.data.settings import DataSettings, MixtureItem

SETTINGS = DataSettings(train=(MixtureItem("clotho"),), max_tokens=5)


def test_the_spelling_is_the_recipes() -> None:
    text = "  A Dog,\tbarks -- twice! "
    assert normalise(text, SETTINGS) == "a dog barks twice"
    assert normalise(text, replace(SETTINGS, lower=False)) == "A Dog barks twice"
    assert normalise(text, replace(SETTINGS, strip_punctuation=False)) == "a dog, barks -- twice!"
    assert normalise("?!", SETTINGS) == ""


@given(st.text())
def test_spelling_twice_changes_nothing(text: str) -> None:
    once = normalise(text, SETTINGS)
    assert normalise(once, SETTINGS) == once


def test_tokens_are_cut_and_padded() -> None:
    tokens, mask = tokenise(Letters(), ["ab", "abcdefgh"], SETTINGS)
    assert tokens.shape == (2, 5) and tokens.dtype == torch.int64
    assert mask.tolist() == [[True, True, False, False, False], [True] * 5] and mask.dtype == torch.bool


CAPTIONS = [{"text": str(number)} for number in range(5)]


def test_random_uses_the_chance_and_first_does_not() -> None:
    chosen = {choose_caption(CAPTIONS, "random", chance / 100, 0.0, 0)["text"] for chance in range(100)}
    assert chosen == {"0", "1", "2", "3", "4"}
    assert choose_caption(CAPTIONS, "first", 0.99, 0.99, 3)["text"] == "0"


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
def test_rotate_uses_every_caption_before_any_again(start: float, first_pass: int) -> None:
    passes = [choose_caption(CAPTIONS, "rotate", 0.5, start, first_pass + n)["text"] for n in range(10)]
    assert len(set(passes[:5])) == 5 and passes[:5] == passes[5:]
