from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.data.shards import row, table_of
from tests.training.small_runs import small_recipe
from training.data import DataSettings, MixtureItem
from training.data.sampling.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import RoundRobinOrder, SideEncoder, encode_clips, encode_texts, join, side_encoder
from training.tasks.retrieval import assemble

SPLIT = "clotho/evaluation"


@pytest.fixture(scope="module")
def encoder() -> SideEncoder:
    recipe = small_recipe()
    model, _ = assemble(recipe, ["a low hum", "a whistle", "some hiss"])
    return side_encoder(model, recipe.data, torch.device("cpu"))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5))
def test_ranks_together_take_every_batch_once(clips: int, batch: int, world: int) -> None:
    data = DataSettings(train=(MixtureItem("clotho"),), batch_size=2)
    order = SequentialOrder(table_of([row(number) for number in range(clips)]), "clotho", data, batch)
    ranks = [RoundRobinOrder(order, rank, world) for rank in range(world)]
    assert len({rank.steps_per_epoch for rank in ranks}) == 1
    taken: Iterator[list[str]] = (
        rank.batch(0, step).clip_ids for step in range(ranks[0].steps_per_epoch) for rank in ranks
    )
    assert [ids for ids in taken if ids] == [order.batch(0, step).clip_ids for step in range(order.steps_per_epoch)]


def test_sides_are_in_order_and_do_not_depend_on_the_batch_size(encoder: SideEncoder, build: Path) -> None:
    manifest = Manifest.open(build)
    sides = []
    for batch_size in (2, 9):
        order = SequentialOrder(manifest.table, SPLIT, encoder.settings, batch_size)
        done = []
        sides.append(encode_clips(encoder, manifest, order, LocalGroup(), lambda *counts: done.append(counts)))  # noqa: B023
        assert done[0][0] == 0 and done[-1] == (order.steps_per_epoch, order.steps_per_epoch)
    torch.testing.assert_close(sides[0], sides[1])
    assert len(sides[0][0]) == 9
    texts = ["hum", "a rising tone", "hiss and whistle"]
    whole = encode_texts(encoder, texts, LocalGroup(), 3)
    torch.testing.assert_close(encode_texts(encoder, texts, LocalGroup(), 2), whole)
    torch.testing.assert_close(encode_texts(encoder, texts[::-1], LocalGroup(), 1)[0].flip(0), whole[0])


def test_a_damaged_clip_is_refused(encoder: SideEncoder, build: Path) -> None:
    manifest = Manifest.open(build)
    rows = manifest.table.to_pylist()
    for number, one in enumerate(rows):
        rows[number] = one | {"audio_bytes": 20}
    damaged = type("Damaged", (), {"table": table_of(rows), "storage": manifest.storage})()
    order = SequentialOrder(damaged.table, SPLIT, encoder.settings, 4)
    with pytest.raises(InputError, match="earshot verify"):
        encode_clips(encoder, damaged, order, LocalGroup())


def test_sides_of_other_lengths_are_padded_with_zeros() -> None:
    short, long = torch.ones(2, 3, 4), torch.ones(1, 5, 4)
    (joined,) = join([(short,), (long,)])
    assert joined.shape == (3, 5, 4)
    assert np.array_equal(joined.sum((1, 2)).numpy(), [12, 12, 20])
    assert joined[:2, 3:].eq(0).all()
