"""The build and the losses that are stored in ``tests/golden`` come out again.

Where a change is meant to alter them, ``python -m bench.golden --regenerate`` stores the new ones.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.golden_inputs import HEADS
from bench.golden_set import GoldenSet, load, measure, same_values


@pytest.fixture(scope="module")
def stored() -> GoldenSet:
    return load()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    return measure(tmp_path_factory.mktemp("golden"))


def test_on_the_kind_of_cpu_that_stored_them_every_byte_and_every_loss_is_the_same(
    stored: GoldenSet, measured: GoldenSet
) -> None:
    if stored.machine != measured.machine:
        pytest.skip(f"stored on {stored.machine}, and this is {measured.machine}")
    assert measured.files == stored.files
    assert measured.losses == stored.losses
    assert measured.norms == stored.norms


def test_on_any_machine_the_same_files_hold_the_same_tables(stored: GoldenSet, measured: GoldenSet) -> None:
    assert sorted(measured.files) == sorted(stored.files)
    assert sorted(measured.tables) == sorted(stored.tables)
    for name, rows in stored.tables.items():
        assert same_values(measured.tables[name], rows), name


def test_on_any_machine_sound_is_within_one_step_of_16_bits(stored: GoldenSet, measured: GoldenSet) -> None:
    assert measured.samples == stored.samples
    assert np.abs(measured.sound.astype(int) - stored.sound.astype(int)).max() <= 1


@pytest.mark.parametrize("head", HEADS)
def test_on_any_machine_losses_and_gradients_are_nearly_the_same(
    head: str, stored: GoldenSet, measured: GoldenSet
) -> None:
    assert measured.losses[head] == pytest.approx(stored.losses[head], abs=1e-5)
    assert measured.norms[head] == pytest.approx(stored.norms[head], rel=1e-3)
