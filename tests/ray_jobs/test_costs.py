"""What a build and a run cost: arithmetic on catalogues, recipes and clusters."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.costs import (
    BUILD_CORE_S,
    JOIN_S,
    PAIR_S,
    PAIRS,
    Nodes,
    Span,
    Trial,
    build_cost,
    money,
    sounds_of,
    training_cost,
    trial_of,
)
from sharding.common.errors import InputError
from sharding.schema import CATALOGUE
from training.config.loading import load_recipe

CAPTION = {"text": "a dog barks", "kind": "human", "onset": None, "offset": None, "source": None}
HOST = Nodes("host", 1, 1, 0)


def catalogue(clips: int, seconds: float | None = 10.0, dataset: str = "clotho", **columns: object) -> pa.Table:
    """Clips of clotho/development, each with five captions and this published length."""
    row = {"dataset": dataset, "part": "development", "split": "development", "captions": [CAPTION] * 5}
    row |= {"keywords": [], "notes": [], "published_duration_s": seconds} | columns
    return pa.Table.from_pylist([{"clip_id": f"c/{n}", "path": f"{n}.wav"} | row for n in range(clips)], CATALOGUE)


@settings(deadline=None)  # Arrow starts its threads in the first example
@given(st.integers(1, 10**8), st.integers(1, 64), st.integers(1, 64))
def test_twice_the_nodes_never_take_longer_and_spans_are_in_order(clips: int, number: int, cpus: int) -> None:
    one, two = (build_cost(clips, 10.0 * clips, Nodes("host", count, cpus, 0)) for count in (number, 2 * number))
    assert two["hours"].high <= one["hours"].high and two["core_hours"] == one["core_hours"]
    for cost in (one, two):
        for name in ("hours", "core_hours", "shard_bytes"):
            assert 0 < cost[name].low <= cost[name].high
        assert 0 < cost["hours_on_one_core"] < cost["hours"].low


def test_a_build_costs_what_its_seconds_of_sound_cost() -> None:
    cost = build_cost(360, 3600.0, HOST)
    assert cost["hours_of_sound"] == 1.0 and cost["clips"] == 360
    assert cost["core_hours"].low == pytest.approx(BUILD_CORE_S.low + JOIN_S.low / 3600)
    assert cost["core_hours"].high == pytest.approx(
        BUILD_CORE_S.high + (360 * PAIRS.high * PAIR_S + JOIN_S.high) / 3600
    )


def test_clips_without_audio_are_left_out_and_lengths_come_from_intervals() -> None:
    found = catalogue(2, None, interval={"start": 5.0, "end": 12.0})
    missing = catalogue(3, 9.0, path=None, problem="missing")
    assert sounds_of(pa.concat_tables([found, missing]), {}).seconds.tolist() == [7.0, 7.0]
    with pytest.raises(InputError, match="no clip of the catalogue has audio"):
        sounds_of(missing, {})
    assert sounds_of(missing, {}, as_published=True).seconds.tolist() == [9.0] * 3


def test_a_dataset_without_lengths_needs_a_mean() -> None:
    whole = catalogue(2, None, interval={"start": 0.0, "end": None})
    with pytest.raises(InputError, match="2 clips of clotho have no published length") as error:
        sounds_of(whole, {"other": 1.0})
    assert "--mean-s clotho=10" in str(error.value)
    assert sounds_of(whole, {"clotho": 22.5}).seconds.tolist() == [22.5, 22.5]


def test_a_recipe_takes_as_many_steps_as_its_run_would() -> None:
    recipe = load_recipe("dual_encoder", ["data.batch_size=16", "optimizer.epochs=3"])
    cost = training_cost("x", recipe, sounds_of(catalogue(100, 90.0), {}), Nodes("gpu", 2, 8, 4), None)
    assert cost["steps"] == 3 * (500 // 16)  # pairs: captions; an incomplete batch is dropped
    assert cost["ranks"] == 8 and cost["clips_encoded"] == cost["steps"] * 16
    assert cost["missing_splits"] == ["audiocaps/train", "wavcaps/train", "tacos/development"]
    assert cost["hours"] is None and cost["checkpoint_bytes"] is None
    # Long clips are read one window of 60 s at a time, and lie in the shards as a whole.
    a_second = cost["bytes_of_its_shards"].high / (100 * 90)
    assert cost["bytes_read"].high == pytest.approx(500 * 60 * a_second * cost["epochs"])


def test_sound_whose_vectors_are_stored_is_read_once() -> None:
    sounds = sounds_of(catalogue(100, dataset="mine", split="train"), {})
    cost = training_cost("x", load_recipe("own_sounds"), sounds, HOST, None)
    assert cost["stored"] and cost["epochs"] > 1 and cost["bytes_read"] == cost["bytes_of_its_shards"]


def test_a_trial_gives_the_hours() -> None:
    recipe, sounds = load_recipe("dual_encoder", ["optimizer.steps=900"]), sounds_of(catalogue(100), {})
    trial = trial_of([1.0] * 10 + [32.0] * 30, 1000)
    assert trial == Trial(Span(32.0, 32.0), 1000)
    alone = training_cost("x", recipe, sounds, HOST, trial)
    assert alone["hours"] == pytest.approx((1.0, 1.0)) and alone["checkpoint_bytes"] == 3000
    eight = training_cost("x", recipe, sounds, Nodes("gpu", 1, 8, 8), trial)["hours"]
    assert eight.low == pytest.approx(1 / 8) and eight.high > 1 / 8
    with pytest.raises(InputError, match="at least 20 steps"):
        trial_of([1.0] * 19, 0)


def test_recipes_that_the_catalogue_cannot_serve_are_refused() -> None:
    sounds = sounds_of(catalogue(100, dataset="mine"), {})
    with pytest.raises(InputError, match="none of the recipe's splits"):
        training_cost("x", load_recipe("dual_encoder"), sounds, HOST, None)
    with pytest.raises(InputError, match=r"x.*text alone"):
        training_cost("x", load_recipe("text_pairs"), sounds, HOST, None)
    with pytest.raises(InputError, match="less than one batch"):
        training_cost("x", load_recipe("dual_encoder"), sounds_of(catalogue(1), {}), HOST, None)


def test_money_is_hours_times_nodes_times_the_users_price() -> None:
    nodes, hours = Nodes("gpu", 4, 8, 8), Span(1.0, 2.0)
    assert money(hours, nodes, {"gpu": 3.0}, "head") == (12.0, 24.0)
    assert money(hours, nodes, {"gpu": 3.0, "head": 0.5}, "head") == (12.5, 25.0)
    assert money(hours, nodes, {"head": 0.5}, "head") is None and money(None, nodes, {"gpu": 3.0}, None) is None


def test_lengths_that_are_not_numbers_count_as_unknown() -> None:
    sounds = sounds_of(catalogue(2, math.nan), {"clotho": 3.0})
    assert np.array_equal(sounds.seconds, [3.0, 3.0])
