"""The order: the same on any machines, once a clip, no kin together, from any step."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.schema import stable_id
from tests.training.data.shards import row, table_of
from tests.training.data.tables import CLOTHO, MIXED, TABLE
from training.data import DataSettings, MixtureItem, Order, SequentialOrder, ShuffleSettings
from training.data.sampling.draws import DrawnSamples
from training.data.sampling.order import batch_name, name_part


def same(a: DrawnSamples, b: DrawnSamples) -> bool:
    return pickle.dumps(a) == pickle.dumps(b)


def joined(order: Order, epoch: int, step: int, world: int) -> list[tuple]:
    """What a global batch holds, rank after rank."""
    out = []
    for rank in range(world):
        draws = order.batch(epoch, step, rank, world)
        out += zip(draws.keys, draws.texts, draws.start_s, draws.duration_s, draws.seeds, strict=True)
    return out


@given(
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 50),
    batch_size=st.integers(1, 60),
    run=st.integers(1, 40),
    window=st.integers(1, 500),
    weights=st.one_of(st.none(), st.tuples(*[st.floats(0.1, 10)] * 3)),
    batches=st.sampled_from(["mixed", "dataset", "length"]),
    last=st.sampled_from(["drop", "keep"]),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_global_batches_do_not_depend_on_the_topology(
    seed: int, epoch: int, batch_size: int, run: int, window: int, weights, batches: str, last: str, data
) -> None:
    items = MIXED
    if weights is not None:
        items = tuple(MixtureItem(i.split, weight=w, repeat=i.repeat) for i, w in zip(MIXED, weights, strict=True))
    chosen = DataSettings(train=items, batch_size=batch_size, shuffle=ShuffleSettings(run, window, batches), last=last)
    order = Order(TABLE, chosen, seed)
    step = data.draw(st.integers(0, order.steps_per_epoch - 1))
    whole = joined(order, epoch, step, 1)
    for world in (2, 4, 8):
        assert joined(order, epoch, step, world) == whole
    fresh = Order(TABLE, chosen, seed)  # resumed: nothing before this step was asked for
    assert same(fresh.batch(epoch, step), order.batch(epoch, step))


@given(seed=st.integers(0, 1000), batch_size=st.integers(8, 40), window=st.integers(1, 500))
@settings(deadline=None, max_examples=12)
def test_an_epoch_draws_each_clip_once(seed: int, batch_size: int, window: int) -> None:
    items = (MixtureItem("clotho"), MixtureItem("wavcaps"), MixtureItem("long"))
    chosen = DataSettings(train=items, batch_size=batch_size, last="keep", shuffle=ShuffleSettings(16, window))
    order = Order(TABLE, chosen, seed)
    for epoch in (0, 3):
        drawn = [clip for step in range(order.steps_per_epoch) for clip in order.batch(epoch, step).clip_ids]
        assert sorted(drawn) == sorted(set(TABLE["clip_id"].to_pylist()))


def test_the_order_never_changes() -> None:
    """A change gives every run other samples or crops, which the changelog must announce as ITERATION ORDER."""
    order = Order(TABLE, DataSettings(train=MIXED, batch_size=32, crop_s=7.0), 5)
    batches = [order.batch(epoch, step) for epoch in (0, 3) for step in range(order.steps_per_epoch)]
    drawn = [
        f"{key} {text} {start:.6f} {seed}"
        for batch in batches
        for key, text, start, seed in zip(batch.keys, batch.texts, batch.start_s, batch.seeds.tolist(), strict=True)
    ]
    assert f"{stable_id(chr(10).join(drawn)) & 0xFFFFFFFFFFFFFFFF:016x}" == "55d4e705b179df5c"


def test_the_parts_of_all_ranks_add_up_to_the_name_of_the_batch() -> None:
    order = Order(TABLE, DataSettings(train=MIXED, batch_size=32), 5)
    whole = order.batch(1, 2)
    for world in (1, 2, 3, 5):
        parts = [order.batch(1, 2, rank, world).name_part for rank in range(world)]
        assert batch_name(sum(parts)) == batch_name(name_part(whole.keys))
    swapped = [whole.keys[1], whole.keys[0], *whole.keys[2:]]
    assert batch_name(name_part(swapped)) != batch_name(whole.name_part)


def test_epochs_and_seeds_differ() -> None:
    chosen = DataSettings(train=MIXED, batch_size=32)
    first = Order(TABLE, chosen, 0)
    assert first.batch(0, 0).keys != first.batch(1, 0).keys
    assert first.batch(0, 0).keys != Order(TABLE, chosen, 1).batch(0, 0).keys


def test_epochs_with_few_kin_differ_and_count_their_repeats() -> None:
    rows = [row(number, kin=f"k{number % 7}") for number in range(120)] + [row(n) for n in range(120, 150)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=10), 0)
    repeats = sum(order.count_kin_repeats(0, step) for step in range(15))
    assert repeats == sum(max(0, 120 // 7 + (k < 120 % 7) - 15) for k in range(7))
    lone = [[c for c in order.batch(epoch, 0).clip_ids if int(c.split("clip ")[1][:-2]) >= 120] for epoch in (0, 1)]
    assert lone[0] != lone[1], "clips without kin are distributed anew in each epoch"


def test_a_clip_of_two_items_is_its_own_kin() -> None:
    """One split listed twice, for two kinds of captions: never both captions of a clip in one batch."""
    rows = [row(number) for number in range(40)]
    for one in rows:
        one["captions"][0]["kind"] = "machine"
    items = tuple(MixtureItem("clotho", captions=(kind,), weight=1.0) for kind in ("human", "machine"))
    order = Order(table_of(rows), DataSettings(train=items, batch_size=20), 0)
    assert order.steps_per_epoch == 4
    for step in range(4):
        assert len(set(order.batch(0, step).clip_ids)) == 20


def test_no_batch_repeats_kin_and_repeats_that_remain_are_counted() -> None:
    rows = [row(number, kin=f"k{number % 60}") for number in range(150)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=32), 0)
    for step in range(order.steps_per_epoch):
        assert len(set(order.batch(0, step).kin)) == 32
        assert order.count_kin_repeats(0, step) == 0
    one = Order(
        table_of([row(n, kin="all") for n in range(32)]),
        DataSettings(train=(MixtureItem("clotho"),), batch_size=32),
        0,
    )
    assert one.count_kin_repeats(0, 0) == 31


def test_clips_are_kept_apart_by_kin_else_by_group_else_by_clip() -> None:
    rows = [row(number, kin=None, group=f"g{number % 60}") for number in range(120)]
    rows += [row(number, kin=None, group=None) for number in range(120, 150)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=30), 0)
    for step in range(order.steps_per_epoch):
        assert len(set(order.batch(0, step).group)) == 30 and order.count_kin_repeats(0, step) == 0


def test_shuffling_is_that_of_a_permutation() -> None:
    """Distances between original neighbours are spread as in a true permutation (Kolmogorov distance)."""
    size = 4000
    table = table_of([row(number) | {"captions": row(0)["captions"][:1]} for number in range(size)])
    order = Order(table, DataSettings(train=(MixtureItem("clotho"),), batch_size=32, last="keep"), 5)
    places = np.argsort(order.rows(2))
    distances = np.sort(np.abs(np.diff(places)))
    # |i - j| of two random places: P(distance <= d) = 1 - (1 - d / n)^2
    expected = 1 - (1 - distances / size) ** 2
    assert np.abs(expected - np.arange(1, size) / (size - 1)).max() < 0.035


def test_small_windows_read_shards_in_runs() -> None:
    table = table_of([row(number) | {"captions": row(0)["captions"][:1]} for number in range(4096)])
    chosen = DataSettings(train=(MixtureItem("clotho"),), batch_size=64, shuffle=ShuffleSettings(run=32, window=512))
    rows = Order(table, chosen, 5).rows(1)
    for window in rows.reshape(-1, 512):
        runs, counts = np.unique(window // 32, return_counts=True)
        assert len(runs) <= 17 and counts.max() == 32


def test_evaluation_order_is_the_shards_order() -> None:
    order = SequentialOrder(TABLE, "clotho/development", DataSettings(train=MIXED), batch_size=64)
    drawn = [clip for step in range(order.steps_per_epoch) for clip in order.batch(0, step).clip_ids]
    assert drawn == [one["clip_id"] for one in CLOTHO]
    parts = [key for rank in range(4) for key in order.batch(0, 2, rank, 4).keys]
    assert parts == order.batch(0, 2).keys
    assert (order.batch(0, 0).start_s == 0).all()


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="clotho/development"):
        Order(TABLE, DataSettings(train=(MixtureItem("clotho/developement"),)), 0)
    with pytest.raises(InputError, match="batch_size"):
        Order(TABLE, DataSettings(train=(MixtureItem("clotho"),), batch_size=200), 0)
    with pytest.raises(InputError, match="weight"):
        DataSettings(train=(MixtureItem("clotho", weight=1.0), MixtureItem("wavcaps")))
    with pytest.raises(InputError, match="no such step"):
        Order(TABLE, DataSettings(train=(MixtureItem("clotho"),), batch_size=100), 0).batch(0, 1)
