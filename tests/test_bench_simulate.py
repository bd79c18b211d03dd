"""What the simulator of large corpora and many GPUs says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulate import (
    DUAL_ENCODER,
    LARGE,
    LIMITS,
    WAVCAPS,
    Hardware,
    breaks,
    received,
    simulate_step,
    state_bytes,
)
from bench.simulate_check import Compared
from ray_jobs.costs import Span

HARDWARE = Hardware(operations_s=2e14, link=5e10, gpus=8, cores=96, memory=1e12)


@given(st.integers(1, 2048), st.integers(1, 10**6))
def test_more_gpus_never_hold_more_and_never_receive_less(gpus: int, batch: int) -> None:
    few, many = (simulate_step(DUAL_ENCODER, HARDWARE, count, batch, WAVCAPS) for count in (gpus, 2 * gpus))
    assert few.state_bytes > many.state_bytes > 8 * DUAL_ENCODER.parameters
    assert few.gradient_bytes < many.gradient_bytes < 12 * DUAL_ENCODER.parameters
    assert 0 < few.step_s.low <= few.step_s.high and few.clips * gpus >= batch
    assert many.compute_s <= few.compute_s


def test_one_process_receives_nothing() -> None:
    assert received(DUAL_ENCODER, 1, 128) == (0, 0)
    assert state_bytes(DUAL_ENCODER, 1) == 5 * 4 * DUAL_ENCODER.parameters


def test_what_breaks_is_named_with_the_first_number_of_gpus() -> None:
    published = [simulate_step(DUAL_ENCODER, HARDWARE, count, 128, WAVCAPS) for count in (8, 128, 256, 1024)]
    found = {limit.what: gpus for gpus, limit in breaks(published, HARDWARE)}
    assert found["traffic takes longer than work"] == 8 and found["GPUs have no clip"] == 256
    slow = HARDWARE._replace(operations_s=1e12)
    assert not list(breaks([simulate_step(DUAL_ENCODER, slow, 8, 128, WAVCAPS)], slow))
    small = HARDWARE._replace(memory=1e11)
    grown = [simulate_step(DUAL_ENCODER, small, 1024, 128 * 1024, corpus) for corpus in (WAVCAPS, LARGE)]
    passed = [{limit.what for limit in LIMITS if limit.passed(step, small)} for step in grown]
    assert passed[0] == {"an epoch has fewer than 10 steps"}
    assert passed[1] == {"orders take more than half of the node's memory"}


@pytest.mark.parametrize(("measured", "factor"), [(2.0, 1.0), (8.0, 2.0), (0.5, 0.5)])
def test_a_simulation_errs_by_its_distance_from_the_span(measured: float, factor: float) -> None:
    assert Compared("", Span(1.0, 4.0), measured).factor == factor
