import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.dedup.fingerprint import HOP, INFORMATIVE, RATE, WEAKEST_SHIFT, Fingerprinter, fingerprint
from tests.sharding.dedup import hard_cases


def test_a_shifted_copy_at_another_rate_and_level_has_mostly_the_same_codes():
    wave = hard_cases.scene(np.random.default_rng(1), 8)
    copy = soxr.resample(-0.1 * wave, 32000, 24000) + 0.2
    first, second = fingerprint(wave, 32000).codes, fingerprint(copy, 24000).codes
    wrong = np.bitwise_count(first[: len(second)] ^ second[: len(first)]).mean() / 32
    assert wrong < 0.03


def test_codes_of_different_sounds_differ_in_about_half_of_their_bits():
    first, second = (fingerprint(hard_cases.scene(np.random.default_rng(k), 8), 32000).codes for k in (1, 2))
    assert 0.4 < np.bitwise_count(first ^ second).mean() / 32 < 0.6


def test_one_code_a_hop_and_a_flag_that_names_a_bit():
    wave = hard_cases.scene(np.random.default_rng(3), 5)
    codes, flags = fingerprint(wave, 32000)
    assert codes.dtype == np.uint32 and flags.dtype == np.uint8 and len(codes) == len(flags)
    assert 0 < 5 * RATE / HOP - len(codes) < 0.6 * RATE / HOP
    assert (flags >> WEAKEST_SHIFT).max() < 32
    assert (flags & INFORMATIVE).mean() > 0.9


def test_silence_an_offset_and_a_pure_tone_say_nothing():
    t = np.arange(5 * RATE) / RATE
    for wave in (np.zeros(5 * RATE), np.full(5 * RATE, 0.3), 0.5 * np.sin(2 * np.pi * 1000 * t)):
        flags = fingerprint(wave.astype(np.float32), RATE).flags
        assert (flags[40:-40] & INFORMATIVE).mean() < 0.05


@pytest.mark.parametrize("hertz", [50, 150, 4700, 5500, 7000, 12000])
def test_sound_outside_the_band_changes_few_bits_at_any_input_rate(hertz):
    """Without the filter before decimation, all but the first two tones would fold into the band."""
    wave = hard_cases.scene(np.random.default_rng(4), 6)
    tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(len(wave)) / 32000)
    first, second = (fingerprint(sound.astype(np.float32), 32000).codes for sound in (wave, wave + tone))
    assert np.bitwise_count(first ^ second).mean() / 32 < 0.02


def test_frames_below_80_decibel_of_full_scale_are_not_informative():
    hiss = np.random.default_rng(5).standard_normal(3 * RATE).astype(np.float32)
    for level, informative in ((1e-3, True), (10 ** (-75 / 20), True), (10 ** (-85 / 20), False), (1e-6, False)):
        flags = fingerprint(level * hiss, RATE).flags
        assert (flags & INFORMATIVE).mean() == informative, level


def test_a_sound_that_is_too_short_has_an_empty_fingerprint():
    for samples in (0, 1, 3000):
        assert len(fingerprint(np.ones(samples, np.float32), RATE).codes) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 150_000), min_size=1, max_size=8), st.sampled_from([8000, 16000, 24000, 32000]))
def test_the_fingerprint_does_not_depend_on_how_the_sound_arrives(sizes, rate):
    wave = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    whole = fingerprint(wave, rate)
    printer = Fingerprinter(rate)
    start = 0
    for size in sizes:
        printer.push(wave[start : start + size])
        start += size
    pieces = printer.finish()
    assert np.array_equal(whole.codes, pieces.codes) and np.array_equal(whole.flags, pieces.flags)
