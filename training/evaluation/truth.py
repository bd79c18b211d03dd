"""What is right in a split: which clips are relevant to which captions, and what no model can do better.

A caption's own clip is relevant to it.  Where clips share captions, a second figure counts every clip that has an equal
caption, and a ceiling says what the first figure can reach at most: equal captions get equal scores, so a model cannot
tell whose caption it was given.  Captions are equal if they have the same words, whatever their case and punctuation.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.counting import Relevant
from training.evaluation.metrics import Ints, Ranking

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> str:
    """A caption by which equal ones are found: lower case, without punctuation, with single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split()) or text


@dataclass(frozen=True)
class Truth:
    """The captions of a split and their clips.

    Attributes:
        clips: how many clips there are.
        clip_of: ``[captions]`` each caption's clip.
        text: ``[captions]`` a number for each caption, equal for equal captions.
        shared: whether captions of different clips are equal.
    """

    clips: int
    clip_of: Ints
    text: Ints
    shared: bool

    @staticmethod
    def of(clips: int, clip_of: Ints, texts: Sequence[str]) -> Truth:
        """Make the truth from the captions as they were published."""
        _, text = np.unique(np.array([words(each) for each in texts], dtype=object), return_inverse=True)
        pairs = np.unique(np.stack((text, clip_of)), axis=1)
        return Truth(clips, clip_of, text, bool(pairs.shape[1] > len(np.unique(text))))

    def own(self) -> Relevant:
        """The clip of each caption."""
        return Relevant.of(np.arange(len(self.clip_of)), self.clip_of)

    def equal(self) -> Relevant:
        """For each caption, every clip that has an equal caption."""
        texts, clips = np.unique(np.stack((self.text, self.clip_of)), axis=1)
        counts = np.bincount(texts, minlength=int(self.text.max(initial=-1)) + 1)
        starts = np.cumsum(counts) - counts
        each = counts[self.text]
        query = np.repeat(np.arange(len(self.text)), each)
        place = np.arange(len(query)) - np.repeat(np.cumsum(each) - each, each)
        return Relevant.of(query, clips[starts[self.text][query] + place])

    def ceiling_of_clips(self) -> Ranking:
        """The best ranking of clips for captions, their own clip being relevant, that treats equal captions alike."""
        pair, inverse, count = np.unique(
            np.stack((self.text, self.clip_of)), axis=1, return_inverse=True, return_counts=True
        )
        order = np.lexsort((-count, pair[0]))  # the clips with most of the equal captions first
        place = np.empty(len(order), np.int64)
        sorted_text = pair[0][order]
        place[order] = np.arange(len(order)) - np.searchsorted(sorted_text, sorted_text)
        above = place[inverse.ravel()]
        ones = np.ones(len(above), np.int64)
        return Ranking(np.arange(len(above)), above, ones, ones, len(above), self.clips)

    def ceiling_of_captions(self) -> Ranking:
        """The best ranking of captions for clips, their own captions being relevant: the least shared ones first."""
        pair, own = np.unique(np.stack((self.clip_of, self.text)), axis=1, return_counts=True)
        size = np.bincount(self.text)[pair[1]]
        order = np.lexsort((size, -own / size, pair[0]))
        clip, own, size = pair[0][order], own[order], size[order]
        before = np.cumsum(size) - size
        above = before - before[np.searchsorted(clip, clip)]
        return Ranking(clip, above, size, own.astype(np.int64), self.clips, len(self.text))


def transposed(relevant: Relevant) -> Relevant:
    """The same pairs with clips as queries and captions as items."""
    return Relevant.of(relevant.item, relevant.query)
