"""Intervals and tests: against scipy, by hand, and by how often they err."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.evaluation.scores.statistics import bootstrap, holm, paired


def test_an_interval_is_that_of_the_normal_distribution_for_many_queries() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.2, (4000, 1))
    found = bootstrap(values, np.arange(4000))[0]
    error = 1.96 * values.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=error / 10)
    assert found.high == pytest.approx(values.mean() + error, abs=error / 10)


def test_five_equal_captions_of_a_clip_count_as_one() -> None:
    values = np.random.default_rng(1).random((300, 2))
    one = bootstrap(values, np.arange(300))
    five = bootstrap(np.repeat(values, 5, axis=0), np.repeat(np.arange(300), 5))
    assert [(e.mean, e.low, e.high) for e in five] == [pytest.approx((e.mean, e.low, e.high)) for e in one]


def test_the_test_is_that_of_scipy() -> None:
    draw = np.random.default_rng(2)
    one = draw.random((40, 1))
    other = one - 0.06 + 0.15 * draw.standard_normal((40, 1))
    expected = stats.permutation_test(
        (one[:, 0], other[:, 0]), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=20000, rng=0,
    )  # fmt: skip
    assert paired(one, other, np.arange(40))[0].p == pytest.approx(expected.pvalue, abs=0.02)


def test_equal_systems_differ_by_chance_as_often_as_p_says() -> None:
    draw, found = np.random.default_rng(3), []
    for seed in range(60):
        noise = draw.standard_normal((2, 30, 1))
        found.append(paired(noise[0], noise[1], np.arange(30), seed)[0].p)
    assert 0.3 < np.mean(found) < 0.7 and np.mean(np.array(found) < 0.05) < 0.15
    same = paired(noise[0], noise[0], np.arange(30))[0]
    assert (same.mean, same.p) == (0, 1)


def test_holms_correction_of_a_case_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
