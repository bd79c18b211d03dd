"""A mix is never explained by the recording it was made from, a copy always is."""

import io

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sharding.dedup.explanation import RATE, excesses
from tests.sharding.dedup import hard_cases

SECONDS = 5


def recording(seed):
    return hard_cases.scene(np.random.default_rng([41, seed]), SECONDS)


def stored(wave):
    return (np.round(np.clip(wave, -1, 1) * 32767) / 32767).astype(np.float32)


def rms(wave):
    return np.sqrt(np.mean(wave.astype(np.float64) ** 2))


def event(kind, n, rng):
    t = np.arange(n) / RATE
    if kind == "bird":
        sound = np.sin(2 * np.pi * np.cumsum(6000 + 1200 * np.sin(2 * np.pi * 8 * t)) / RATE)
    elif kind == "thump":
        sound = np.sin(2 * np.pi * 120 * t)
    elif kind == "hiss":
        sound = np.diff(rng.standard_normal(n + 1))
    else:
        sound = hard_cases.scene(rng, n / RATE)[:n]
    return sound * np.sin(np.linspace(0, np.pi, n)) ** 0.5


def mixed(wave, sound, start, level_db):
    """The wave with a sound from ``start`` on, at a level relative to what is there (at least 30 dB under the wave)."""
    there = wave[start : start + len(sound)]
    local = max(rms(there), rms(wave) * 10 ** (-30 / 20))
    result = wave.astype(np.float64)
    result[start : start + len(sound)] += sound * local * 10 ** (level_db / 20) / rms(sound)
    return stored(result / max(1.0, np.abs(result).max()))


def coded(wave, form, subtype, level=0.5, rate=RATE):
    file = io.BytesIO()
    sound = wave if rate == RATE else soxr.resample(wave, RATE, rate)
    soundfile.write(file, sound, rate, format=form, subtype=subtype, compression_level=level)
    file.seek(0)
    back = soundfile.read(file, dtype="float32")[0]
    return back if rate == RATE else soxr.resample(back, rate, RATE)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["bird", "thump", "hiss", "scene"]),
    st.sampled_from([0.1, 0.3, 1.0, 2.0]),
    st.floats(0, 1),
    st.floats(-10, 20),
    st.booleans(),
)
@example(3, "bird", 0.1, 0.5, -10.0, False)
def test_an_event_is_found_in_the_clip_that_holds_it(seed, kind, seconds, where, level_db, swapped):
    wave, n = stored(recording(seed % 50)), int(seconds * RATE)
    start = int(where * (len(wave) - n))
    mix = mixed(wave, event(kind, n, np.random.default_rng(seed)), start, level_db)
    beyond = excesses(mix, wave)[0] if swapped else excesses(wave, mix)[1]
    assert beyond is not None
    assert beyond.start_s < (start + n) / RATE and start / RATE < beyond.start_s + beyond.duration_s


def test_where_and_at_what_pitch_an_event_lies_is_told():
    wave = stored(0.3 * recording(1))
    mix = mixed(wave, event("bird", RATE, np.random.default_rng(0)), 2 * RATE, 6.0)
    ours, theirs = excesses(wave, mix)
    assert ours is None or ours.above_db < theirs.above_db
    assert theirs.start_s == pytest.approx(2, abs=0.15)
    assert theirs.start_s + theirs.duration_s == pytest.approx(3, abs=0.15)
    assert 3700 <= theirs.low_hz <= 5300 and 7700 <= theirs.high_hz <= 9500
    assert theirs.above_db > 3


@pytest.mark.parametrize("level_db", [-10.0, -5.0, 0.0])
def test_a_bed_under_all_of_a_recording_is_found(level_db):
    rng = np.random.default_rng(5)
    for bed in (hard_cases.rain(rng, SECONDS * RATE), hard_cases.drones(rng, SECONDS * RATE)):
        wave = stored(0.5 * recording(2))
        assert excesses(wave, mixed(wave, bed, 0, level_db))[1] is not None


@pytest.mark.parametrize("codec", ["MP3", "Vorbis"])
@pytest.mark.parametrize("kind", ["bird", "thump", "hiss", "scene"])
def test_an_event_is_not_taken_for_the_noise_of_a_codec(kind, codec):
    wave = stored(0.5 * recording(4))
    mix = mixed(wave, event(kind, RATE // 3, np.random.default_rng(0)), 2 * RATE, 0.0)
    through = coded(mix, "MP3", "MPEG_LAYER_III") if codec == "MP3" else coded(mix, "OGG", "VORBIS", 0.5, 44100)
    beyond = excesses(wave, stored(through))[1]
    assert beyond is not None and beyond.start_s == pytest.approx(2, abs=0.3)


def test_an_event_above_the_band_of_a_narrow_recording_is_found():
    """The original was recorded at 8 kHz, and so was what is in the mix below 4 kHz."""
    wave = stored(soxr.resample(soxr.resample(recording(3), RATE, 8000), 8000, RATE)[: SECONDS * RATE])
    mix = mixed(wave, event("bird", RATE, np.random.default_rng(0)), RATE, 0.0)
    assert excesses(wave, mix)[1] is not None


COPIES = {
    "MP3": lambda wave: coded(wave, "MP3", "MPEG_LAYER_III"),
    "MP3, best": lambda wave: coded(wave, "MP3", "MPEG_LAYER_III", 0.0),
    "Vorbis": lambda wave: coded(wave, "OGG", "VORBIS", 0.5, 44100),
    "Opus": lambda wave: coded(wave, "OGG", "OPUS", 0.5, 48000),
    "16 kHz": lambda wave: soxr.resample(soxr.resample(wave, RATE, 16000), 16000, RATE),
    "8 kHz": lambda wave: soxr.resample(soxr.resample(wave, RATE, 8000), 8000, RATE),
    "20 dB quieter": lambda wave: wave / 10,
    "clipped": lambda wave: np.clip(2 * wave, -1, 1),
    "inverted, offset": lambda wave: 0.1 - 0.8 * wave,
    "later by a third of a sample": lambda wave: soxr.resample(soxr.resample(wave, RATE, 3 * RATE)[1:], 3 * RATE, RATE),
    "faded in and out": lambda wave: (
        wave * np.minimum(1, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / RATE)
    ),
    "noise at 30 dB": lambda wave: (
        wave + np.random.default_rng(1).standard_normal(len(wave)) * rms(wave) * 10 ** (-30 / 20)
    ),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_explained(way):
    for seed in range(4):
        wave = stored(recording(seed))
        copy = stored(COPIES[way](wave))
        assert excesses(wave, copy) == (None, None), seed
        assert excesses(copy, wave) == (None, None), seed


def test_a_short_sound_that_lies_inside_of_a_fade_is_explained():
    """The rest of the clip is silent, so the fade is all that tells its gain."""
    wave = np.zeros(SECONDS * RATE, np.float32)
    wave[:RATE] = recording(5)[:RATE] * np.exp(-np.arange(RATE) / RATE * 5)
    faded = stored(wave * np.minimum(1, np.arange(len(wave)) / RATE))
    assert excesses(stored(wave), faded) == (None, None)


def test_equal_and_silent_stretches_are_explained():
    wave = stored(recording(0))
    assert excesses(wave, wave.copy()) == (None, None)
    silence = np.zeros(RATE, np.float32)
    assert excesses(silence, silence) == (None, None)
    assert excesses(wave[:RATE], silence)[0] is not None


@pytest.mark.parametrize("n", [1, 100, 5000])
def test_short_stretches_are_compared_too(n):
    wave = stored(recording(0))[:n]
    assert excesses(wave, wave.copy()) == (None, None)
