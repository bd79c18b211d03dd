"""Captions, windows and crops of drawn clips."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from tests.training.data.tables import MIXED, TABLE
from training.data import DataSettings, DrawnSamples, MixtureItem, Order
from training.data.sources import training_captions


def same(a: DrawnSamples, b: DrawnSamples) -> bool:
    return pickle.dumps(a) == pickle.dumps(b)


def test_captions_are_drawn_by_their_rule() -> None:
    def texts(rule: str) -> list[dict[str, str]]:
        chosen = DataSettings(train=(MixtureItem("clotho"),), batch_size=150, caption_choice=rule)  # type: ignore[arg-type]
        order = Order(TABLE, chosen, 0)
        batches = [order.batch(epoch, 0) for epoch in range(5)]
        return [dict(zip(batch.clip_ids, batch.texts, strict=True)) for batch in batches]

    rotated = texts("rotate")
    clip = next(iter(rotated[0]))
    assert len({epoch[clip] for epoch in rotated}) == 5
    drawn = texts("random")
    assert 2 <= len({epoch[clip] for epoch in drawn} | {epoch[clip] for epoch in rotated}) <= 5
    assert len({text[-1] for text in drawn[0].values()}) == 5, "clips draw captions independently"
    assert {text[-1] for text in texts("first")[3].values()} == {"0"}
    assert clip.split("clip ")[1].split(".")[0] in rotated[0][clip]


def test_captions_without_words_are_skipped_and_are_not_equal_captions() -> None:
    rows = [row(number) for number in range(20)]
    for one in rows[:10]:
        for caption in one["captions"][1:]:
            caption["text"] = "?!"
    for one in rows[10:]:
        one["captions"] = [{**one["captions"][0], "text": "..."}]
    batch = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=20), 0).batch(0, 0)
    assert len(set(batch.caption.tolist())) == 20
    assert sum(text == "" for text in batch.texts) == 10


def test_a_prompt_makes_one_text_of_all_labels() -> None:
    rows = [row(number) for number in range(3)]
    for count, one in enumerate(rows, 1):
        labels = [one["captions"][0] | {"text": text, "kind": "label"} for text in ["Rain", "Dog", "Bell"][:count]]
        one["captions"] = [*one["captions"], *labels]
    item = MixtureItem("clotho", captions=("label",), prompt="This is a sound of {}")
    settings = DataSettings(train=(item,), batch_size=3, lower=False, strip_punctuation=False)
    batch = Order(table_of(rows), settings, 0).batch(0, 0)
    assert sorted(batch.texts) == [
        "This is a sound of Rain",
        "This is a sound of Rain and Dog",
        "This is a sound of Rain, Dog, and Bell",
    ]
    assert sorted(batch.texts) == training_captions(table_of(rows), settings)
    assert len(set(batch.caption.tolist())) == 3


def test_a_prompt_that_could_not_be_filled_is_refused() -> None:
    with pytest.raises(InputError, match="where the labels stand"):
        MixtureItem("clotho", captions=("label",), prompt="a sound")
    with pytest.raises(InputError, match="needs captions"):
        MixtureItem("clotho", prompt="a sound of {}")


def test_windows_and_crops_change_with_the_epoch() -> None:
    order = Order(TABLE, DataSettings(train=(MixtureItem("long"),), batch_size=20, crop_s=30.0), 0)
    drawn = [dict(zip(draws.clip_ids, zip(draws.keys, draws.start_s, strict=True), strict=True)) for draws in
           (order.batch(epoch, 0) for epoch in range(12))]  # fmt: skip
    for clip in drawn[0]:
        assert len({epoch[clip][0] for epoch in drawn}) > 1, "several windows are drawn"
        assert len({epoch[clip][1] for epoch in drawn}) == 12, "crops differ"
        assert all(0 <= epoch[clip][1] <= 270.0 for epoch in drawn)


def test_a_caption_with_times_keeps_its_sound() -> None:
    caption = {"text": "a bell", "kind": "human", "onset": 340.0, "offset": 344.0, "source": None}
    rows = [row(0, "long", "train", w, 4, duration_s=300.0, captions=[caption]) for w in range(4)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("long"),), batch_size=1, crop_s=10.0), 0)
    for epoch in range(20):
        draws = order.batch(epoch, 0)
        assert draws.keys[0].endswith("@00001")
        assert draws.start_s[0] <= 40.0 and draws.start_s[0] + draws.duration_s[0] >= 44.0


def test_a_look_up_does_not_depend_on_how_the_manifest_is_chunked() -> None:
    whole = Order(TABLE.combine_chunks(), DataSettings(train=MIXED, batch_size=32), 0)
    pieces = pa.concat_tables([TABLE.slice(start, 7) for start in range(0, len(TABLE), 7)] + [TABLE.slice(0, 0)])
    cut = Order(pieces, DataSettings(train=MIXED, batch_size=32), 0)
    assert all(same(whole.batch(1, step), cut.batch(1, step)) for step in range(3))
