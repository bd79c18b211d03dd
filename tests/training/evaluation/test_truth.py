"""Equal captions: what counts as right, and what can be reached at most."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.counting import rank_rows
from training.evaluation.metrics import MEASURED, of_each_query
from training.evaluation.truth import Truth, words


def means(ranking: Any) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in of_each_query(ranking).items()}


def test_captions_are_equal_whatever_their_case_and_punctuation() -> None:
    assert words("A dog,  barks!") == words("a DOG barks") == "a dog barks"
    assert words("...") == "..."  # what has no words is equal to itself alone


def test_a_split_of_labels_by_hand() -> None:
    # Clips 0 and 1 are both "dog", clip 2 is "rain": a model that knows everything still guesses between two dogs.
    truth = Truth.of(3, np.array([0, 1, 2]), ["dog", "Dog!", "rain"])
    assert truth.shared
    assert means(truth.ceiling_of_clips())["R@1"] == pytest.approx(2 / 3)
    assert means(truth.ceiling_of_captions())["R@1"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    equal = truth.equal()
    assert list(zip(equal.query.tolist(), equal.item.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    perfect = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    assert means(rank_rows([(0, perfect)], equal).ranking(3))["R@1"] == 1
    assert means(rank_rows([(0, perfect)], truth.own()).ranking(3))["R@1"] == pytest.approx(2 / 3)


def test_where_no_caption_is_shared_everything_can_be_reached() -> None:
    truth = Truth.of(2, np.array([0, 0, 1]), ["a", "a", "b"])  # a clip's own captions may be equal
    assert not truth.shared
    for ranking in (truth.ceiling_of_clips(), truth.ceiling_of_captions()):
        assert means(ranking)["R@1"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), min_size=1, max_size=6))
def test_no_scores_by_text_reach_more_than_the_ceiling(pairs: list[tuple[int, str]]) -> None:
    clip_of = np.array([clip for clip, _ in pairs])
    clips, clip_of = len(np.unique(clip_of)), np.unique(clip_of, return_inverse=True)[1]
    texts = [text for _, text in pairs]
    truth = Truth.of(clips, clip_of, texts)
    best = dict.fromkeys(MEASURED, Fraction(0))
    for orders in itertools.product(itertools.permutations(range(clips)), repeat=len(set(texts))):
        order = dict(zip(sorted(set(texts)), orders, strict=True))
        scores = np.array([order[text] for text in texts], np.float32)
        found = means(rank_rows([(0, scores)], truth.own()).ranking(clips))
        best = {name: max(best[name], found[name]) for name in MEASURED}
    assert means(truth.ceiling_of_clips()) == pytest.approx({name: float(value) for name, value in best.items()})
