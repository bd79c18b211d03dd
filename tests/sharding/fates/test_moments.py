from __future__ import annotations

import pyarrow as pa

from sharding.fates.moments import SLACK_S, captions_outside
from sharding.schema import CATALOGUE, FACTS
from tests.sharding.fates.tables import clip, fact


def test_captions_after_the_end_of_their_recordings_are_found() -> None:
    names = ("mine/all/good", "mine/all/late", "mine/all/broken", "tacos/test/late", "mine/all/plain")
    clips = [clip(name) | {"path": f"{name}.wav"} for name in names]
    for one, (onset, offset) in zip(
        clips, [(0.0, 10.0 + SLACK_S), (2.0, 12.0), (2.0, 12.0), (2.0, 12.0)], strict=False
    ):
        one["captions"][0] |= {"onset": onset, "offset": offset}
    facts = [fact(name) for name in names if "broken" not in name] + [fact("mine/all/broken", None, "truncated")]
    tables = pa.Table.from_pylist(clips, CATALOGUE), pa.Table.from_pylist(facts, FACTS)
    (found,) = captions_outside(*tables, {"mine"})
    assert found == ("mine", "mine/all/late.wav", 2.0, 12.0, 10.0)
    assert list(captions_outside(CATALOGUE.empty_table(), FACTS.empty_table(), {"mine"})) == []
