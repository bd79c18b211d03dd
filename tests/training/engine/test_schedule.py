from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config.sections import OptimizerSettings
from training.engine.schedule import make_schedule


def test_one_epoch_up_then_ten_down() -> None:
    # Calvet and Toledano 2025 section 3.3
    schedule = make_schedule(OptimizerSettings(clip=0, lr=2e-5, final_lr=1e-7, warmup_epochs=1, epochs=11), 100)
    assert schedule.steps == 1100
    assert schedule.rate(0) == pytest.approx(2e-7)
    assert schedule.rate(49) == pytest.approx(1e-5)
    assert schedule.rate(99) == schedule.rate(100) == pytest.approx(2e-5)
    halfway = (100 + 1099) / 2
    middle = (schedule.rate(math.floor(halfway)) + schedule.rate(math.ceil(halfway))) / 2
    assert middle == pytest.approx((2e-5 + 1e-7) / 2, rel=1e-3)
    assert schedule.rate(1099) == schedule.rate(5000) == pytest.approx(1e-7)


@given(
    steps=st.integers(1, 50),
    epochs=st.floats(0.1, 20),
    warmup=st.floats(0, 3),
    lr=st.floats(1e-6, 1),
    low=st.floats(0, 1),
)
def test_rates_rise_then_fall_between_their_bounds(
    steps: int, epochs: float, warmup: float, lr: float, low: float
) -> None:
    schedule = make_schedule(
        OptimizerSettings(clip=0, lr=lr, final_lr=low * lr, warmup_epochs=warmup, epochs=epochs), steps
    )
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates) or low * lr == 0
    top = schedule.warmup
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(steps=st.integers(3, 50), epochs=st.floats(0.1, 5), warmup=st.floats(0, 9), counted=st.booleans())
def test_the_rate_falls_at_the_end_of_a_run_of_any_length(
    steps: int, epochs: float, warmup: float, counted: bool
) -> None:
    length = {"steps": max(2, round(epochs * steps))} if counted else {"epochs": epochs}
    schedule = make_schedule(OptimizerSettings(clip=0, lr=1.0, final_lr=0.1, warmup_epochs=warmup, **length), steps)
    if schedule.steps > 1:
        assert schedule.rate(schedule.steps - 1) == pytest.approx(0.1)
    asked = round(warmup * steps)
    assert schedule.is_shortened == (asked > 0 and asked >= schedule.steps - 1)
    assert schedule.warmup == (round(schedule.steps / 10) if schedule.is_shortened else asked)
