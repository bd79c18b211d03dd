"""The order: the same on any machines, once a clip, no kin together, from any step."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from training.data import DataSettings, MixtureItem, Order, SequentialOrder, ShuffleSettings
from training.data.kinship import kin_repeats, separate_kin
from training.data.sampling import DrawnSamples

CLOTHO = [row(number) for number in range(150)]
WAVCAPS = [row(number, "wavcaps", "train") for number in range(230)]
LONG = [
    row(number, "long", "train", window=window, windows=4, duration_s=300.0)
    for number in range(20)
    for window in range(4)
]
TABLE = table_of(CLOTHO + WAVCAPS + LONG)
MIXED = (MixtureItem("clotho/development"), MixtureItem("wavcaps"), MixtureItem("long/train", repeat=2.5))


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
        met = [clip for step in range(order.steps_per_epoch) for clip in order.batch(epoch, step).clip_ids]
        assert sorted(met) == sorted(set(TABLE["clip_id"].to_pylist()))


def test_epochs_and_seeds_differ() -> None:
    chosen = DataSettings(train=MIXED, batch_size=32)
    first = Order(TABLE, chosen, 0)
    assert first.batch(0, 0).keys != first.batch(1, 0).keys
    assert first.batch(0, 0).keys != Order(TABLE, chosen, 1).batch(0, 0).keys


def test_draws_go_on_where_the_last_epoch_stopped() -> None:
    """An item of half its clips an epoch meets every clip once in two epochs; cap and choose likewise."""
    for item in (
        MixtureItem("clotho", repeat=0.5),
        MixtureItem("clotho", cap=75),
        MixtureItem("clotho", choose=75),
    ):
        order = Order(TABLE, DataSettings(train=(item,), batch_size=15), 3)
        assert order.steps_per_epoch == 5
        met = [clip for epoch in (0, 1) for step in range(5) for clip in order.batch(epoch, step).clip_ids]
        assert len(set(met)) == len(met) == 150


def test_weights_and_temperature_share_out_an_epoch() -> None:
    items = (MixtureItem("clotho", weight=3.0), MixtureItem("wavcaps", weight=1.0))
    order = Order(TABLE, DataSettings(train=items, batch_size=1), 0)
    datasets = [order.batch(0, step).clip_ids[0].split("/")[0] for step in range(order.steps_per_epoch)]
    assert (datasets.count("clotho"), datasets.count("wavcaps")) == (285, 95)
    flat = DataSettings(train=(MixtureItem("clotho"), MixtureItem("wavcaps")), batch_size=1, temperature=1e6)
    order = Order(TABLE, flat, 0)
    datasets = [order.batch(0, step).clip_ids[0].split("/")[0] for step in range(order.steps_per_epoch)]
    assert (datasets.count("clotho"), datasets.count("wavcaps")) == (190, 190)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    batch=st.integers(1, 25),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=150)
def test_kin_are_separated_wherever_batches_suffice(sizes: list[int], batch: int, seed: int) -> None:
    kin = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    kin = kin[: len(kin) // batch * batch]
    order = separate_kin(kin, batch)
    assert sorted(order) == list(range(len(kin)))
    if len(kin) and np.bincount(kin).max() <= len(kin) // batch:
        assert len(kin_repeats(kin[order], batch)) == 0
    assert len(kin_repeats(kin[order], batch)) <= len(kin_repeats(kin, batch))


@given(groups=st.integers(1, 30), batch=st.integers(1, 30), batches=st.integers(1, 20), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=100)
def test_kin_meet_only_where_no_order_can_part_them(groups: int, batch: int, batches: int, seed: int) -> None:
    """Fewer kin than places, as many, or more; and the number that meets is the smallest there is."""
    kin = np.random.default_rng(seed).integers(0, groups, batch * batches)
    met = len(kin_repeats(kin[separate_kin(kin, batch)], batch))
    assert met == np.maximum(np.bincount(kin) - batches, 0).sum()


@pytest.mark.parametrize("groups", [1, 10, 64, 7000])
def test_kin_rich_data_are_parted_at_once(groups: int) -> None:
    kin = np.random.default_rng(0).integers(0, groups, 200_000)
    kin[:50_000] = 0
    assert len(kin_repeats(kin[separate_kin(kin, 64)], 64)) == np.maximum(np.bincount(kin) - 3125, 0).sum()


def test_kin_rich_epochs_differ_and_are_counted() -> None:
    rows = [row(number, kin=f"k{number % 7}") for number in range(120)] + [row(n) for n in range(120, 150)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=10), 0)
    met = sum(order.count_kin_repeats(0, step) for step in range(15))
    assert met == sum(max(0, 120 // 7 + (k < 120 % 7) - 15) for k in range(7))
    lone = [[c for c in order.batch(epoch, 0).clip_ids if int(c.split("clip ")[1][:-2]) >= 120] for epoch in (0, 1)]
    assert lone[0] != lone[1], "clips without kin are dealt anew each epoch"


def test_a_clip_met_through_two_items_is_its_own_kin() -> None:
    """One split listed twice, for two kinds of captions: never both captions of a clip in one batch."""
    rows = [row(number) for number in range(40)]
    for one in rows:
        one["captions"][0]["kind"] = "machine"
    items = tuple(MixtureItem("clotho", captions=(kind,), weight=1.0) for kind in ("human", "machine"))
    order = Order(table_of(rows), DataSettings(train=items, batch_size=20), 0)
    assert order.steps_per_epoch == 4
    for step in range(4):
        assert len(set(order.batch(0, step).clip_ids)) == 20


def test_a_look_up_does_not_depend_on_how_the_manifest_is_chunked() -> None:
    whole = Order(TABLE.combine_chunks(), DataSettings(train=MIXED, batch_size=32), 0)
    pieces = pa.concat_tables([TABLE.slice(start, 7) for start in range(0, len(TABLE), 7)] + [TABLE.slice(0, 0)])
    cut = Order(pieces, DataSettings(train=MIXED, batch_size=32), 0)
    assert all(same(whole.batch(1, step), cut.batch(1, step)) for step in range(3))


def test_no_two_kin_in_a_batch_and_the_rest_are_counted() -> None:
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


def test_captions_without_words_are_passed_over_and_are_no_common_caption() -> None:
    rows = [row(number) for number in range(20)]
    for one in rows[:10]:
        for caption in one["captions"][1:]:
            caption["text"] = "?!"
    for one in rows[10:]:
        one["captions"] = [{**one["captions"][0], "text": "..."}]
    batch = Order(table_of(rows), DataSettings(train=(MixtureItem("clotho"),), batch_size=20), 0).batch(0, 0)
    assert len(set(batch.caption.tolist())) == 20
    assert sum(text == "" for text in batch.texts) == 10


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


def test_windows_and_crops_change_with_the_epoch() -> None:
    order = Order(TABLE, DataSettings(train=(MixtureItem("long"),), batch_size=20, crop_s=30.0), 0)
    met = [dict(zip(draws.clip_ids, zip(draws.keys, draws.start_s, strict=True), strict=True)) for draws in
           (order.batch(epoch, 0) for epoch in range(12))]  # fmt: skip
    for clip in met[0]:
        assert len({epoch[clip][0] for epoch in met}) > 1, "several windows are met"
        assert len({epoch[clip][1] for epoch in met}) == 12, "crops differ"
        assert all(0 <= epoch[clip][1] <= 270.0 for epoch in met)


def test_a_caption_with_times_keeps_its_sound() -> None:
    caption = {"text": "a bell", "kind": "human", "onset": 340.0, "offset": 344.0, "source": None}
    rows = [row(0, "long", "train", w, 4, duration_s=300.0, captions=[caption]) for w in range(4)]
    order = Order(table_of(rows), DataSettings(train=(MixtureItem("long"),), batch_size=1, crop_s=10.0), 0)
    for epoch in range(20):
        draws = order.batch(epoch, 0)
        assert draws.keys[0].endswith("@00001")
        assert draws.start_s[0] <= 40.0 and draws.start_s[0] + draws.duration_s[0] >= 44.0


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


def test_neighbourhoods_and_datasets_make_batches(tmp_path) -> None:
    file = tmp_path / "neighbours.parquet"
    clips = [one["clip_id"] for one in CLOTHO[:128]]
    place = np.arange(128) % 4
    vectors = np.eye(4)[place] + 0.01 * np.random.default_rng(0).standard_normal((128, 4))
    pq.write_table(pa.table({"clip_id": clips, "embedding": vectors.tolist()}), file)
    near = ShuffleSettings(batches="neighbours", neighbours=str(file))
    order = Order(table_of(CLOTHO[:128]), DataSettings(train=(MixtureItem("clotho"),), batch_size=16, shuffle=near), 0)
    alike = []
    for step in range(order.steps_per_epoch):
        groups = [place[clips.index(clip)] for clip in order.batch(0, step).clip_ids]
        alike.append(np.bincount(groups, minlength=4).max() / 16)
    assert np.mean(alike) > 0.7
    by_dataset = ShuffleSettings(batches="dataset")
    chosen = DataSettings(train=(MixtureItem("clotho"), MixtureItem("wavcaps")), batch_size=10, shuffle=by_dataset)
    order = Order(TABLE, chosen, 0)
    mixed = [len({c.split("/")[0] for c in order.batch(0, s).clip_ids}) for s in range(order.steps_per_epoch)]
    assert sum(mixed) <= order.steps_per_epoch + 1


def test_neighbours_are_asked_of_the_mixture_alone(tmp_path) -> None:
    file = tmp_path / "neighbours.parquet"
    near = ShuffleSettings(batches="neighbours", neighbours=str(file))
    chosen = DataSettings(train=(MixtureItem("clotho"),), batch_size=16, shuffle=near)
    clips = [one["clip_id"] for one in CLOTHO]
    pq.write_table(pa.table({"clip_id": clips, "embedding": [[1.0, float(n)] for n in range(150)]}), file)
    Order(TABLE, chosen, 0).batch(0, 0)
    pq.write_table(pa.table({"clip_id": clips[1:], "embedding": [[1.0, float(n)] for n in range(149)]}), file)
    with pytest.raises(InputError, match="clip 0"):
        Order(TABLE, chosen, 0)
    for wrong, what in (([[1.0], [1.0, 2.0]], "width"), ([[1.0, 2.0], [1.0, float("nan")]], "finite")):
        pq.write_table(pa.table({"clip_id": clips, "embedding": wrong * 75}), file)
        with pytest.raises(InputError, match=what):
            Order(TABLE, chosen, 0)


def test_evaluation_order_is_the_shards_order() -> None:
    order = SequentialOrder(TABLE, "clotho/development", DataSettings(train=MIXED), batch_size=64)
    met = [clip for step in range(order.steps_per_epoch) for clip in order.batch(0, step).clip_ids]
    assert met == [one["clip_id"] for one in CLOTHO]
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
