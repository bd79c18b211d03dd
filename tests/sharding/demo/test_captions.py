"""Captions of synthesised scenes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sharding.demo.captions import WORDS, Event, distinct_captions, human_caption, machine_caption
from sharding.demo.sounds import SOUNDS


def test_every_sound_has_words_and_they_name_it_with_the_right_article() -> None:
    assert set(WORDS) == set(SOUNDS)
    rng = np.random.default_rng(0)
    for name in SOUNDS:
        for shade in (0, 1):
            text = human_caption(rng, [Event(name, 0.0, 1.0, shade, 0, False)])
            assert "{" not in text and "  " not in text and text.endswith(".")
            words = text.lower().split()
            for article, word in pairwise(words):
                assert (article, word[0] in "aeiou") not in (("a", True), ("an", False)), text


def test_captions_tell_the_order_of_two_events() -> None:
    rng = np.random.default_rng(1)
    events = [Event("dog", 0.0, 2.0, 0, 1, False), Event("rain", 2.5, 5.0, 0, 0, False)]
    texts = distinct_captions(rng, events, 5)
    assert len(set(texts)) == 5
    reverse = [text for text in texts if text.lower().find("rain") < text.lower().find("dog")]
    assert all("after" in text.lower() for text in reverse)


def test_a_machine_names_every_sound_but_not_always_in_order() -> None:
    rng = np.random.default_rng(2)
    events = [Event("dog", 0.0, 2.0, 0, 1, False), Event("rain", 2.5, 5.0, 0, 0, False)]
    texts = [machine_caption(rng, events).lower() for _ in range(60)]
    assert all("dog" in text and "rain" in text for text in texts)
    first = [text.index("dog") < text.index("rain") for text in texts]
    assert any(first) and not all(first)


def test_captions_differ_only_as_far_as_the_events_allow() -> None:
    texts = distinct_captions(np.random.default_rng(0), [Event("wind", 0.0, 2.0, 0, 0, False)], 100)
    assert len(texts) == 100 and len(set(texts)) > 5
