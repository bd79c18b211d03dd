import numpy as np
import pytest
import soxr

from sharding.dedup.fingerprint import RATE
from sharding.dedup.waveform import (
    NOTHING,
    VerificationSettings,
    align_and_compare,
    band_passed,
    best_lag,
    effective_components,
    innovations,
    is_silent,
    levelled,
)
from tests.sharding.dedup import hard_cases


def scene(number, seconds=6.0):
    return soxr.resample(hard_cases.scene(np.random.default_rng([11, number]), seconds), 32000, RATE)


def tone(hertz, seconds=1.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def noise(number, seconds, amplitude=0.1):
    return (amplitude * np.random.default_rng(number).standard_normal(int(seconds * RATE))).astype(np.float32)


def gain(hertz):
    """The factor by which the filter changes the amplitude of a tone, away from the ends."""
    wave = tone(hertz)
    inner = slice(RATE // 4, -RATE // 4)
    return band_passed(wave)[inner].std() / wave[inner].std()


@pytest.mark.parametrize("hertz", [300, 500, 1000, 2000, 3400])
def test_inside_the_band_the_response_rises_with_frequency(hertz):
    assert gain(hertz) == pytest.approx(hertz / 1000, rel=0.02)


@pytest.mark.parametrize("hertz", [250, 3500])
def test_the_response_is_half_at_both_edges_of_the_band(hertz):
    assert gain(hertz) == pytest.approx(hertz / 1000 / 2, rel=0.05)


@pytest.mark.parametrize("hertz", [20, 50, 100, 180, 3650, 3800, 3950])
def test_the_filter_removes_what_lies_outside_the_band(hertz):
    assert gain(hertz) < 0.001


def test_the_filter_delays_nothing_and_does_not_wrap_around():
    wave = np.zeros(RATE, np.float32)
    wave[6000] = 1
    found = np.abs(band_passed(wave))
    assert found.argmax() == 6000
    wave = np.zeros(RATE, np.float32)
    wave[-400:] = noise(0, 0.05, 1)
    assert np.abs(band_passed(wave))[: RATE // 2].max() < 0.01 * np.abs(band_passed(wave)).max()


def test_a_cut_through_a_rumble_and_an_offset_makes_no_click():
    rumble = tone(40, 1.0, 0.9)[50:-37] + np.float32(0.3)
    assert np.abs(band_passed(rumble)).max() < 0.02
    assert np.abs(band_passed(np.full(RATE, 0.7, np.float32))).max() < 1e-6


@pytest.mark.parametrize("samples", [1, 2, 3, 319, 320, 321, 5003])
def test_filtering_keeps_the_length_and_leaves_the_input_alone(samples):
    wave = noise(1, 1)[:samples]
    before = wave.copy()
    found = band_passed(wave)
    assert found.shape == (samples,) and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(wave, before)


def test_levelling_makes_events_equally_loud_but_does_not_raise_residue():
    loud, soft, residue = (tone(1000, 1.0, amplitude) for amplitude in (0.5, 0.05, 0.0005))
    found = levelled(np.concatenate([loud, soft, residue])).reshape(3, RATE)[:, RATE // 4 : -RATE // 4].std(axis=1)
    assert found[:2] == pytest.approx([1, 1], rel=0.05)
    assert found[2] == pytest.approx(0.1, rel=0.1)  # -60 dB, raised by 40 dB
    assert not levelled(np.zeros(RATE, np.float32)).any()


def test_silence_is_what_is_inaudible_in_the_band():
    for wave in (np.zeros(RATE), np.full(RATE, 0.5), tone(50, 1.0, 0.2), noise(0, 1, 1e-5), noise(0, 1)[:19]):
        assert is_silent(wave.astype(np.float32))
    for wave in (noise(0, 1, 1e-3), tone(500, 1.0, 0.01), scene(0)):
        assert not is_silent(wave)


@pytest.mark.parametrize("lag", [0, 1, 777, -901])
@pytest.mark.parametrize("factor", [1.0, -0.2])
def test_the_lag_of_a_copy_is_found_on_both_sides(lag, factor):
    whole = levelled(band_passed(scene(0)))
    a, b = (whole, factor * whole[lag:]) if lag >= 0 else (whole[-lag:], factor * whole)
    assert best_lag(a, b, -2000, 2000) == lag


def test_lags_outside_the_bounds_or_with_too_short_an_overlap_are_not_tried():
    whole = levelled(band_passed(scene(0)))
    assert 100 <= best_lag(whole, whole[777:], 100, 500) <= 500
    assert best_lag(whole[:4000], whole[:4000], 2001, 9000) is None
    assert best_lag(whole[:4000], whole[:4000], -9000, -2001) is None
    assert best_lag(whole[:4000], whole[:4000], 2000, 9000) == 2000


def test_noise_has_many_components_and_tones_and_clicks_have_few():
    click = np.zeros(4 * RATE, np.float32)
    click[RATE] = 1
    assert effective_components(band_passed(click)) < 12
    assert effective_components(band_passed(tone(1000, 4))) < 12
    short, long = (effective_components(band_passed(noise(0, seconds))) for seconds in (2, 8))
    assert short > 1000
    assert long == pytest.approx(4 * short, rel=0.1)
    assert effective_components(noise(0, 1)[:79]) == 0


@pytest.mark.parametrize("start_s", [0.5, 1.0 + 0.25 / RATE, 2.0 + 0.6 / RATE])
def test_a_copy_is_found_between_samples_where_it_begins_and_as_long_as_it_lasts(start_s):
    fine = hard_cases.scene(np.random.default_rng(3), 6)  # four times the rate
    first = round(start_s * 4 * RATE)
    a, b = soxr.resample(fine, 4, 1), soxr.resample(fine[first : first + 3 * 4 * RATE], 4, 1)
    verdict = align_and_compare(a, -0.3 * b, -6, 6)
    assert verdict.outcome == "same" and verdict.correlation > 0.99
    assert verdict.lag_s == pytest.approx(first / 4 / RATE, abs=0.05 / RATE)
    assert verdict.start_s == pytest.approx(start_s, abs=0.02)
    assert verdict.overlap_s == pytest.approx(3, abs=0.02)
    swapped = align_and_compare(-0.3 * b, a, -6, 6)
    assert swapped.outcome == "same" and swapped.lag_s == pytest.approx(-verdict.lag_s, abs=0.05 / RATE)


def test_only_the_span_that_agrees_is_proved():
    shared = scene(1, 3)
    a = np.concatenate([scene(2, 3), shared, scene(3, 3)])
    b = np.concatenate([scene(4, 3), shared, scene(5, 3)])
    verdict = align_and_compare(a, b, -0.1, 0.1)
    assert verdict.outcome == "same"
    assert verdict.start_s == pytest.approx(3, abs=0.3) and verdict.overlap_s == pytest.approx(3, abs=0.5)


def test_more_than_a_second_of_other_sound_ends_the_span_and_less_does_not():
    def replaced(seconds):
        changed = scene(6, 9)
        changed[4 * RATE : int((4 + seconds) * RATE)] = scene(7, seconds)
        return align_and_compare(scene(6, 9), changed, -0.1, 0.1)

    assert replaced(0.75).overlap_s == pytest.approx(9, abs=0.1)
    assert replaced(1.75).overlap_s == pytest.approx(4, abs=0.5)  # the first 4 s were longer than the 3.25 s after it


def test_silence_on_either_side_belongs_to_the_span():
    padded = np.concatenate([np.zeros(2 * RATE, np.float32), scene(8, 3), np.zeros(RATE, np.float32)])
    verdict = align_and_compare(padded, 0.5 * padded, -1, 1)
    assert verdict.outcome == "same" and verdict.start_s == 0 and verdict.overlap_s == pytest.approx(6, abs=0.01)


def test_a_copy_under_noise_is_the_same_but_a_buried_one_is_not():
    whole = band_passed(noise(1, 6))
    other = band_passed(noise(2, 6))

    def correlated(rho):
        return align_and_compare(whole, rho * whole + np.sqrt(1 - rho**2) * other, -0.01, 0.01).outcome

    assert [correlated(rho) for rho in (0.9, 0.62, 0.0)] == ["same", "same", "different"]
    assert correlated(0.5) != "same"


def test_evidence_is_the_log_likelihood_ratio_of_gaussian_signals():
    whole = band_passed(noise(1, 6))
    verdict = align_and_compare(whole, 0.8 * whole + 0.6 * band_passed(noise(2, 6)), -0.01, 0.01)
    assert verdict.correlation == pytest.approx(0.8, abs=0.02)
    assert verdict.evidence == pytest.approx(-verdict.components * np.log(1 - verdict.correlation**2))
    assert verdict.components > 1000


def test_stretches_shorter_than_a_block_prove_nothing():
    wave = scene(9, 1)
    for samples in (0, 1, RATE // 4 - 1):
        assert align_and_compare(wave, wave[:samples], -1, 1) == NOTHING
    assert align_and_compare(wave, wave, 5, 6) == NOTHING


def test_a_shorter_span_than_the_settings_ask_is_not_the_same():
    wave = scene(10, 2)
    assert align_and_compare(wave, wave, -0.1, 0.1).outcome == "same"
    assert align_and_compare(wave, wave, -0.1, 0.1, VerificationSettings(same_span_s=2.5)).outcome == "undecided"


def test_tones_are_judged_by_the_faint_sound_that_lies_beneath_them():
    loud = tone(700, 4) + tone(1100, 4)
    a = loud + noise(1, 4, 0.002)
    assert align_and_compare(a, 0.5 * a, -0.001, 0.001).outcome == "same"
    assert align_and_compare(a, loud + noise(2, 4, 0.002), -0.001, 0.001).outcome == "undecided"
    assert align_and_compare(tone(700, 4), tone(700, 4), -0.001, 0.001).outcome == "undecided"


def test_linear_prediction_takes_tones_away_and_keeps_noise():
    hiss = noise(3, 2, 0.01)
    x, y = innovations(hiss + tone(700, 2), hiss)
    assert x.std() == pytest.approx(0.01, rel=0.2)
    assert len(x) == len(y) == 2 * RATE - 256
    for wave in (hiss[:1023], np.zeros(RATE, np.float32)):
        assert [len(part) for part in innovations(wave, wave)] == [0, 0]


def test_verdicts_are_ordered_by_outcome_and_then_by_evidence():
    verdicts = [NOTHING._replace(outcome=o, evidence=e) for o in ("different", "undecided", "same") for e in (1.0, 2.0)]
    assert sorted([verdicts[k] for k in (3, 0, 5, 1, 4, 2)], key=lambda verdict: verdict.strength) == verdicts
