"""The corpus as it grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sharding.demo.corpus import Corpus, Truth


def test_held_out_clips_differ_in_what_sounds() -> None:
    from sharding.demo.corpus import Corpus, Truth

    corpus = Corpus(Path("unused"), np.random.default_rng(0), Truth(0))
    pairs = [frozenset(corpus.class_names(2)) for _ in range(200)]
    assert len(set(pairs)) == 200


def test_ids_are_never_given_twice() -> None:
    corpus = Corpus(Path("unused"), np.random.default_rng(0), Truth(0))
    ids = [corpus.new_freesound_id() for _ in range(2000)]
    assert len(set(ids)) == 2000 and all(text.isdigit() for text in ids)
    assert corpus.new_youtube_id(dashed=True).startswith("-") and len(corpus.new_youtube_id(dashed=False)) == 11
