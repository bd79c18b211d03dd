"""How often an epoch draws the clips of each item."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from tests.training.data.tables import TABLE
from training.data import DataSettings, MixtureItem, Order
from training.data.sampling.mixture import build_pools, draws_per_item, steps_per_epoch


def test_an_epoch_continues_where_the_last_one_stopped() -> None:
    """An item that draws half of its clips in an epoch draws every clip once in two epochs; so do cap and choose."""
    for item in (
        MixtureItem("clotho", repeat=0.5),
        MixtureItem("clotho", cap=75),
        MixtureItem("clotho", choose=75),
    ):
        order = Order(TABLE, DataSettings(train=(item,), batch_size=15), 3)
        assert order.steps_per_epoch == 5
        drawn = [clip for epoch in (0, 1) for step in range(5) for clip in order.batch(epoch, step).clip_ids]
        assert len(set(drawn)) == len(drawn) == 150


def test_weights_and_temperature_divide_an_epoch() -> None:
    items = (MixtureItem("clotho", weight=3.0), MixtureItem("wavcaps", weight=1.0))
    order = Order(TABLE, DataSettings(train=items, batch_size=1), 0)
    datasets = [order.batch(0, step).clip_ids[0].split("/")[0] for step in range(order.steps_per_epoch)]
    assert (datasets.count("clotho"), datasets.count("wavcaps")) == (285, 95)
    flat = DataSettings(train=(MixtureItem("clotho"), MixtureItem("wavcaps")), batch_size=1, temperature=1e6)
    order = Order(TABLE, flat, 0)
    datasets = [order.batch(0, step).clip_ids[0].split("/")[0] for step in range(order.steps_per_epoch)]
    assert (datasets.count("clotho"), datasets.count("wavcaps")) == (190, 190)


def test_only_captions_of_the_wanted_kinds() -> None:
    rows = [row(number) for number in range(40)]
    for number, one in enumerate(rows):
        one["captions"][0]["kind"] = "machine"
        if number % 2:
            one["captions"] = one["captions"][:1]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho", captions=("human",)),), batch_size=20), 0)
    draws = order.batch(0, 0)
    assert len(draws) == 20 and not any(text.endswith("version 0") for text in draws.texts)
    with pytest.raises(InputError, match="label"):
        Order(table_of(rows), DataSettings(train=(MixtureItem("clotho", captions=("label",)),)), 0)


def test_pairs_of_captions_are_each_drawn_once_in_an_epoch() -> None:
    rows = []
    for number in range(5):
        captions = [
            {"text": f"clip {number} wording {wording}", "kind": "human", "onset": None, "offset": None, "source": None}
            for wording in range(1 + number % 3)
        ]
        rows += [row(number, window=window, captions=captions, duration_s=3.0) for window in range(1 + number % 2)]
    table = table_of(rows)
    item = MixtureItem("clotho/development", pairs="captions")
    order = Order(table, DataSettings(train=(item,), batch_size=3, last="keep", crop_s=1.0), 3)
    expected = sorted(caption["text"] for each in rows if each["window"] == 0 for caption in each["captions"])
    seeds = set()
    for epoch in (0, 1):
        drawn = [order.batch(epoch, step) for step in range(order.steps_per_epoch)]
        assert sorted(text for batch in drawn for text in batch.texts) == expected
        seeds |= {int(seed) for batch in drawn for seed in batch.seeds}
    assert len(seeds) == 2 * len(expected)  # the same clip with another caption has other crops and masks


def test_items_of_clips_draw_as_before_beside_items_of_captions() -> None:
    items = (MixtureItem("clotho/development"), MixtureItem("clotho/development", pairs="captions"))
    pools = build_pools(TABLE, items)
    assert (pools[0].caption == -1).all() and len(pools[1]) == pools[1].caption.size >= len(pools[0])


def test_a_share_is_always_the_same_clips_and_lies_inside_larger_shares() -> None:
    table = table_of([row(number, split="development") for number in range(60)])

    def drawn(share: float) -> set[str]:
        (pool,) = build_pools(table, [MixtureItem("clotho/development", share=share)])
        return {table["clip_id"][int(number)].as_py() for number in pool.rows}

    assert len(drawn(1.0)) == 60 and len(drawn(0.5)) == 30 and len(drawn(0.1)) == 6 and len(drawn(0.001)) == 1
    assert drawn(0.001) < drawn(0.1) < drawn(0.5) < drawn(1.0) and drawn(0.1) == drawn(0.1)
    with pytest.raises(InputError, match="share must be above 0"):
        MixtureItem("clotho/development", share=0.0)


@given(
    clips=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["clotho", "wavcaps"]), st.integers(0, 3)), min_size=1),
    shuffled=st.randoms(use_true_random=False),
    order=st.sampled_from(["as built", "first windows missing", "any"]),
)
@settings(deadline=None, max_examples=60)
def test_pools_are_the_clips_in_order_of_their_first_row_and_their_windows_by_number(
    clips: list[tuple[int, str, int]], shuffled: Any, order: str
) -> None:
    """However the rows of a table lie: tables that are as builds write them are read by a shorter way."""
    texts = [{"text": "", "kind": kind, "onset": None, "offset": None, "source": None} for kind in ("human", "label")]
    rows = [
        row(number, dataset, window=window, windows=count, captions=(2 * texts)[:captions])
        for number, (count, dataset, captions) in enumerate(clips)
        for window in range(count)
        if order != "first windows missing" or window
    ]
    if order == "any":
        shuffled.shuffle(rows)
    rows += [row(1000, "clotho"), row(1000, "wavcaps")]
    items = [
        MixtureItem("clotho"),
        MixtureItem("wavcaps", captions=("label",)),
        MixtureItem("clotho", pairs="captions"),
    ]
    rows[-1]["captions"] = texts
    for item, pool in zip(items, build_pools(table_of(rows), items), strict=True):
        wanted: dict[str, list[int]] = {}
        for number, one in enumerate(rows):
            if one["dataset"] == item.split and any(each["kind"] in item.captions for each in one["captions"]):
                wanted.setdefault(one["clip_id"], []).append(number)
        drawn = [sorted(numbers, key=lambda number: rows[number]["window"]) for numbers in wanted.values()]
        if item.pairs == "captions":
            drawn = [numbers for numbers in drawn for _ in rows[numbers[0]]["captions"]]
        got = [pool.rows[start:end].tolist() for start, end in zip(pool.starts, pool.starts[1:], strict=False)]
        assert got == drawn and len(pool.caption) == len(drawn)


def test_steps_of_an_epoch_count_the_last_batch_only_where_it_is_kept() -> None:
    drop, keep = (DataSettings(train=(MixtureItem("clotho"),), batch_size=8, last=last) for last in ("drop", "keep"))
    assert [steps_per_epoch(draws, drop) for draws in (7, 8, 9)] == [0, 1, 1]
    assert [steps_per_epoch(draws, keep) for draws in (7, 8, 9)] == [1, 1, 2]


_ANY = st.floats(1e-6, 1e4) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(_ANY, min_size=2, max_size=2),
    key=st.sampled_from(["weight", "repeat"]),
    temperature=st.none() | _ANY,
)
def test_numbers_of_any_size_are_refused_or_draw_every_item(
    numbers: list[float], key: str, temperature: float | None
) -> None:
    try:
        items = tuple(MixtureItem(split, **{key: n}) for split, n in zip(("clotho", "wavcaps"), numbers, strict=True))
        data = DataSettings(train=items, temperature=None if key == "weight" else temperature)
        pools = build_pools(TABLE, items)
        counts = draws_per_item(pools, data)
    except InputError:
        return
    alone = [1.0 if key == "weight" else n for n in numbers]
    assert counts.min() >= 1
    assert counts.sum() == sum(max(1, round(n * len(pool))) for n, pool in zip(alone, pools, strict=True))


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ((MixtureItem("clotho", choose=10**18),), "more than 1,000,000,000 clips"),
        ((MixtureItem("clotho", choose=10**9),), "more than 1,000,000 times"),
        ((MixtureItem("clotho", weight=1e12), MixtureItem("wavcaps", weight=1e-300)), "no clip of wavcaps"),
    ],
)
def test_an_epoch_that_cannot_be_meant_is_refused(items: tuple[MixtureItem, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        Order(TABLE, DataSettings(train=items), 0)


@pytest.mark.parametrize("setting", [{"crop_s": 1e308}, {"temperature": 1e-308}])
def test_settings_of_absurd_size_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        DataSettings(train=(MixtureItem("clotho"),), **setting)
