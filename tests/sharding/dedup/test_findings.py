from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.storage import Storage
from sharding.dedup import findings
from sharding.dedup.candidates import CANDIDATE
from sharding.dedup.comparing import MatchSettings
from sharding.dedup.findings import Findings, digest
from sharding.dedup.fingerprint import HOP_S, RATE
from tests.sharding.build.kills import keep_every_finding
from tests.sharding.dedup.test_matching import Collection


def stored(folder: Storage) -> list[str]:
    return [name.rpartition("/")[2] for name in folder.list()]


def test_what_was_kept_is_told_once_under_its_step_and_digest(tmp_path: Path) -> None:
    folder = Storage(tmp_path)
    Findings(folder, "a").keep("step", [(("x", 0.1), [{"score": 0.1 + 0.2, "offset": None}])], findings.LEAST_S)
    again = Findings(folder, "a")
    assert again.known("other step", ("x", 0.1)) is None and again.known("step", ("x", 0.2)) is None
    assert again.known("step", ("x", 0.1)) == [{"score": 0.1 + 0.2, "offset": None}]
    assert again.known("step", ("x", 0.1)) is None
    again.keep("step", [(1, [])], findings.LEAST_S)
    assert stored(folder) == ["found-000000.parquet", "found-000001.parquet"]
    assert Findings(folder, "b").known("step", 1) is None and not folder.list()


def test_what_is_damaged_is_sought_again(tmp_path: Path) -> None:
    folder, rows = Storage(tmp_path), np.array([(1, 2, -3, 4)], CANDIDATE)
    hours = math.ceil(findings.JOIN_H * 3600 / HOP_S)
    kept = Findings(folder, "a")
    kept.candidates(lambda: rows, hours)
    kept.keep("step", [(1, [])], findings.LEAST_S)
    for name in folder.list():
        folder.write(name, folder.read(name)[:-20])
    again = Findings(folder, "a")
    assert again.known("step", 1) is None and (again.candidates(lambda: rows[:0], hours) == rows[:0]).all()
    again.keep("step", [(1, [])], findings.LEAST_S)
    assert Findings(folder, "a").known("step", 1) == []


def test_files_are_few_and_a_kill_costs_a_small_share(tmp_path: Path) -> None:
    folder, done = Storage(tmp_path), 0.0
    kept = Findings(folder, "a")
    for number in range(1000):
        kept.keep("step", [(number, [])], 3.0)
        done += 3.0
        assert kept._held_s <= max(findings.LEAST_S, findings.SHARE * done)
    assert 10 < len(folder.list()) < 100
    again = Findings(folder, "a")
    assert sum(again.known("step", number) is not None for number in range(1000)) >= 950


def test_candidates_are_joined_once_where_that_takes_long(tmp_path: Path) -> None:
    rows = np.array([(1, 2, -3, 4), (2, 4_000_000_000, 5, 6)], CANDIDATE)
    joins = itertools.count()

    def find() -> np.ndarray:
        next(joins)
        return rows

    hours = math.ceil(findings.JOIN_H * 3600 / HOP_S)
    for _ in range(2):
        assert (Findings(Storage(tmp_path), "a").candidates(find, hours) == rows).all()
    assert next(joins) == 1
    for folder in (Storage(tmp_path / "short"), None):
        assert (Findings(folder, "a").candidates(find, hours // 2) == rows).all()
    assert next(joins) == 4 and not (tmp_path / "short").exists()


TABLE = st.lists(st.tuples(st.none() | st.text("ab\0"), st.none() | st.floats(-1, 1)), max_size=5)


def as_table(values: list[tuple[str | None, float | None]]) -> pa.Table:
    schema = pa.schema([("text", pa.string()), ("number", pa.float64())])
    return pa.Table.from_pylist([{"text": text, "number": number} for text, number in values], schema)


@given(TABLE, TABLE, st.integers(0, 5))
def test_a_digest_names_the_values_and_not_how_they_are_held(
    one: list[tuple[str | None, float | None]], other: list[tuple[str | None, float | None]], cut: int
) -> None:
    table = as_table(one)
    apart = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert digest([table], ["w"]) == digest([apart], ["w"]) != digest([table], ["v"])
    plain = [[("\0" if text is None else text, number) for text, number in values] for values in (one, other)]
    assert (digest([table], []) == digest([as_table(other)], [])) == (repr(plain[0]) == repr(plain[1]))


class Stopped(Exception):
    """Raised where a killed process would end."""


class Counting:
    """Spreads in this process until it is stopped; knows the items of every step that it carried out."""

    def __init__(self) -> None:
        self.left = 10**9
        self.pieces = 0
        self.items: list[str] = []
        self.joins = 0

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if self.left == 0:
                raise Stopped
            self.left, self.pieces = self.left - 1, self.pieces + 1
            if isinstance(item, list):
                self.items += [f"{function!r:.60} {one}" for one in item]
            else:
                self.joins += 1
            yield function(item)


def noise(seconds: float, seed: int) -> np.ndarray:
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return 0.1 * wave * (1.2 + np.sin(np.arange(len(wave), dtype=np.float32) / 3000))


@pytest.fixture(scope="module")
def collection() -> Collection:
    """A recording that holds a protected sound twice, and a copy of another one that is explained in parts."""
    held, whole = noise(3, 0), noise(8, 1)
    clips = {"held": held, "long": np.concatenate([noise(7, 2), held, noise(8, 3), held]), "whole": whole}
    return Collection(clips | {"copy": 0.5 * whole}, protected={"held"})


@pytest.mark.parametrize("moments", [3, pytest.param(0, marks=pytest.mark.slow)])
def test_what_is_stopped_anywhere_goes_on_and_compares_nothing_twice(
    moments: int, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_every_finding(monkeypatch)
    monkeypatch.setattr("sharding.dedup.residual._STRETCHES", 2)
    settings = MatchSettings(every_place=True, stretch_s=1.0)
    calm = Counting()
    expected = collection.matches(settings=settings, spread=calm, kept=Storage(tmp_path / "calm"))
    assert expected.equals(collection.matches(settings=settings))
    assert len(calm.items) > 8 and calm.joins
    steps = max(1, (calm.pieces - 1) // moments) if moments else 1
    for moment in range(calm.pieces - 1, 0, -steps):
        folder, counting = Storage(tmp_path / str(moment)), Counting()
        counting.left = moment
        with pytest.raises(Stopped):
            collection.matches(settings=settings, spread=counting, kept=folder)
        counting.left = 10**9
        assert collection.matches(settings=settings, spread=counting, kept=folder).equals(expected), moment
        assert sorted(counting.items) == sorted(calm.items), moment
        assert counting.joins == calm.joins or moment < calm.joins


def test_other_settings_and_other_sound_find_nothing_that_was_kept(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_every_finding(monkeypatch)
    folder, again = Storage(tmp_path), Counting()
    collection.matches(kept=folder)
    collection.matches(kept=folder, spread=again)
    assert again.pieces == 0
    changed = Collection(collection.clips, {"held": "other samples"}, {"held"})
    for one, settings in ((collection, MatchSettings(stretch_s=20.0)), (changed, None)):
        counting = Counting()
        one.matches(settings=settings, kept=folder, spread=counting)
        assert counting.pieces > 3
    assert len({name.partition("/")[0] for name in folder.list()}) == 1
