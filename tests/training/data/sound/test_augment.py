"""Changes to waveforms in training."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.settings import AugmentSettings
from training.data.sound.augment import augment, generator, mixup, mixup_share

RATE = 16000
WAVE = (0.1 * np.sin(np.arange(RATE) * 0.3)).astype(np.float32)


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64))))


def test_nothing_changes_by_default() -> None:
    assert augment(WAVE, RATE, 1, AugmentSettings()) is WAVE
    assert mixup_share(1, AugmentSettings()) == 0.0


@pytest.mark.parametrize("settings", [AugmentSettings(gain_db=6), AugmentSettings(noise=1), AugmentSettings(room=1)])
def test_a_change_belongs_to_the_seed(settings: AugmentSettings) -> None:
    before = WAVE.copy()
    one, same, other = (augment(WAVE, RATE, seed, settings) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.array_equal(WAVE, before) and one.dtype == np.float32 and one.shape == WAVE.shape


def test_gain_is_uniform_in_its_range() -> None:
    gains = [level_db(augment(WAVE, RATE, seed, AugmentSettings(gain_db=6))) - level_db(WAVE) for seed in range(400)]
    assert -6.01 <= min(gains) < -5.5 and 5.5 < max(gains) <= 6.01
    assert abs(np.mean(gains)) < 0.6


def test_noise_has_the_drawn_ratio_and_probability() -> None:
    always = AugmentSettings(noise=1, noise_snr_db=(10.0, 20.0))
    ratios = [level_db(WAVE) - level_db(augment(WAVE, RATE, seed, always) - WAVE) for seed in range(100)]
    assert 9.8 < min(ratios) < 11.5 and 18.5 < max(ratios) < 20.2
    noisy = [not np.array_equal(augment(WAVE, RATE, seed, AugmentSettings(noise=0.3)), WAVE) for seed in range(400)]
    assert 0.2 < np.mean(noisy) < 0.4


def test_a_room_decays_by_60_db_in_its_time() -> None:
    impulse = np.zeros(RATE, np.float32)
    impulse[0] = 1.0
    response = augment(impulse, RATE, 3, AugmentSettings(room=1, room_rt60_s=(0.5, 0.5)))
    assert abs(response[0]) == np.abs(response).max(), "the direct sound comes first"
    assert not response[int(0.51 * RATE) :].any() or np.abs(response[int(0.51 * RATE) :]).max() < 1e-4
    block = RATE // 20
    decay = level_db(response[block : 2 * block]) - level_db(response[8 * block : 9 * block])
    assert decay == pytest.approx(60 * (7 * 0.05) / 0.5, abs=3)
    assert level_db(response) == pytest.approx(level_db(impulse), abs=0.1), "the energy stays"


def test_a_mix_is_centred_and_cut_or_padded_to_the_wave() -> None:
    partner = np.full(RATE // 2, 0.5, np.float32)
    mixed = mixup(WAVE + 0.2, partner, 0.25)
    other = np.concatenate([partner, np.zeros(RATE // 2, np.float32)])
    assert np.allclose(mixed, 0.75 * (WAVE - WAVE.mean()) + 0.25 * (other - other.mean()), atol=1e-6)
    assert mixup(WAVE[:100], partner, 0.5).shape == (100,)


def test_mixup_shares_are_at_most_one_half_and_have_the_requested_frequency() -> None:
    shares = np.array([mixup_share(seed, AugmentSettings(mixup=0.4, mixup_alpha=0.3)) for seed in range(2000)])
    assert 0.36 < (shares > 0).mean() < 0.44
    assert shares.max() <= 0.5 and shares.max() > 0.45
    assert np.median(shares[shares > 0]) < 0.15, "Beta(0.3, 0.3) draws mostly small shares"


def test_generators_of_other_purposes_are_independent() -> None:
    draws = {generator(purpose, seed).random() for purpose in (1, 2) for seed in range(50)}
    assert len(draws) == 100
