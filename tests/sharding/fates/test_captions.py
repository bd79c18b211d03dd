from __future__ import annotations

import pytest

from tests.sharding.fates.tables import CLOTHO, captions_of, clip, explained, fact, fates, match


@pytest.mark.parametrize(("taken", "offset"), [("tacos/train/t", 0.25), ("audiocaps/train/t", -0.25)])
def test_captions_taken_over_have_times_in_the_written_clip(taken: str, offset: float) -> None:
    """The duplicate begins 0.25 s after the written clip, in either order of the pair."""
    clips = [clip(CLOTHO, "human"), clip(taken, "human", 4)]
    times = [(None, None), (2.0, 4.5), (9.5, 9.99), (9.8, 10.0)]
    for caption, (start, end) in zip(clips[1]["captions"], times, strict=True):
        caption |= {"onset": start, "offset": end}
    facts = [fact(CLOTHO), fact(taken)]
    pairs = explained(match(CLOTHO, taken, 9.75, offset=offset))
    found = fates(clips, facts, pairs)
    assert found[taken]["other"] == CLOTHO
    captions = captions_of(CLOTHO, clips, facts, found, pairs)
    assert [(c["onset"], c["offset"]) for c in captions[1:]] == [(None, None), (2.25, 4.75), (9.75, 10.0)]


def test_a_caption_of_a_part_that_the_written_clip_lacks_is_left_out() -> None:
    longer = "tacos/train/t"
    clips, facts = [clip(CLOTHO, "human"), clip(longer, "human", 2)], [fact(CLOTHO, 10.0), fact(longer, 10.3)]
    clips[1]["captions"][0] |= {"onset": 0.0, "offset": 5.0}
    clips[1]["captions"][1] |= {"onset": 10.1, "offset": 10.3}
    pairs = explained(match(CLOTHO, longer, 10.0))
    found = fates(clips, facts, pairs)
    texts = [caption["text"] for caption in captions_of(CLOTHO, clips, facts, found, pairs)]
    assert texts == [f"{CLOTHO} 0", f"{longer} 0"]
