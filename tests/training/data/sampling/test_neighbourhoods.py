"""Batches of similar clips."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharding.common.errors import InputError
from tests.training.data.shards import table_of
from tests.training.data.tables import CLOTHO, TABLE
from training.data import DataSettings, MixtureItem, Order, ShuffleSettings


def test_neighbourhoods_and_datasets_make_batches(tmp_path) -> None:
    file = tmp_path / "neighbours.parquet"
    clips = [one["clip_id"] for one in CLOTHO[:128]]
    neighbourhood = np.arange(128) % 4
    vectors = np.eye(4)[neighbourhood] + 0.01 * np.random.default_rng(0).standard_normal((128, 4))
    pq.write_table(pa.table({"clip_id": clips, "embedding": vectors.tolist()}), file)
    near = ShuffleSettings(batches="neighbours", neighbours=str(file))
    order = Order(table_of(CLOTHO[:128]), DataSettings(train=(MixtureItem("clotho"),), batch_size=16, shuffle=near), 0)
    alike = []
    for step in range(order.steps_per_epoch):
        groups = [neighbourhood[clips.index(clip)] for clip in order.batch(0, step).clip_ids]
        alike.append(np.bincount(groups, minlength=4).max() / 16)
    assert np.mean(alike) > 0.7
    by_dataset = ShuffleSettings(batches="dataset")
    chosen = DataSettings(train=(MixtureItem("clotho"), MixtureItem("wavcaps")), batch_size=10, shuffle=by_dataset)
    order = Order(TABLE, chosen, 0)
    mixed = [len({c.split("/")[0] for c in order.batch(0, s).clip_ids}) for s in range(order.steps_per_epoch)]
    assert sum(mixed) <= order.steps_per_epoch + 1


def test_only_clips_of_the_mixture_need_an_embedding(tmp_path) -> None:
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
