"""Decoding a part of a file that is in memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.audio import AudioError, decode_segment
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import SECONDS, by_soundfile, wav
from tests.sharding.corpora import noise


def test_every_file_that_the_probe_accepts_can_be_read_in_segments(sounds: dict[str, bytes]) -> None:
    samples = (odd_sounds.wave(32000)[:, 0] * 32767).astype("<i2").tobytes()
    rf64 = sounds["rf64.wav"]
    piped = {"piped.wav": wav(samples, size=0), "piped.rf64": rf64[:28] + bytes(8) + rf64[36:]}
    for name, data in {**sounds, **piped}.items():
        whole, rate = decode_segment(data)
        assert len(whole) / rate == pytest.approx(SECONDS, abs=0.07), name
        piece, _ = decode_segment(data, 0.5, 0.25)
        assert len(piece) / rate == pytest.approx(0.25, abs=0.001), name


@given(start=st.floats(0, 1.9), length=st.floats(0.01, 3.0))
@settings(max_examples=30, deadline=None)
def test_a_segment_equals_that_part_of_the_whole(start: float, length: float) -> None:
    file = io.BytesIO()
    sf.write(file, noise(5, 2.0), 32000, format="FLAC", subtype="PCM_16")
    whole, rate = decode_segment(file.getvalue())
    piece, _ = decode_segment(file.getvalue(), start, length)
    first = round(start * rate)
    assert np.array_equal(piece, whole[first : first + len(piece)])
    assert abs(len(piece) - min(length * rate, len(whole) - first)) <= 1


def test_a_segment_is_decoded_into_given_memory_where_it_fits() -> None:
    file = io.BytesIO()
    sf.write(file, noise(5, 2.0), 32000, format="FLAC", subtype="PCM_16")
    wanted, _ = decode_segment(file.getvalue(), 0.5, 1.0)
    for size, fits in ((32000, True), (40000, True), (31999, False)):
        memory = np.full(size, 7, np.float32)
        found, rate = decode_segment(file.getvalue(), 0.5, 1.0, memory)
        assert np.array_equal(found, wanted) and rate == 32000
        assert np.shares_memory(found, memory) == fits and (memory[32000 if fits else 0 :] == 7).all()


def test_segments_that_are_computed_need_memory_of_their_own() -> None:
    for data in (by_soundfile("WAV", "PCM_16", 8000), by_soundfile("WAV", "GSM610", 8000)):
        memory = np.empty(8000, np.float32)
        found, _ = decode_segment(data, 0.5, 0.25, memory)
        assert np.array_equal(found, decode_segment(data, 0.5, 0.25)[0])


def test_segments_of_codings_that_cannot_seek() -> None:
    data = by_soundfile("WAV", "GSM610", 8000)
    whole, _ = decode_segment(data)
    part, rate = decode_segment(data, 0.5, 0.25)
    assert np.array_equal(part, whole[4000 : 4000 + round(0.25 * rate)])


@given(
    share=st.floats(0.05, 0.95),
    bit=st.integers(0, 7),
    name=st.sampled_from(["free.flac", "flac.oga", "flac.mka", "pack.wv"]),
)
@settings(max_examples=40, deadline=None)
def test_one_changed_bit_of_a_checksummed_coding_is_an_error_and_never_other_sound(
    sounds: dict[str, bytes], share: float, bit: int, name: str
) -> None:
    data = bytearray(sounds[name])
    data[int(share * len(data))] ^= 1 << bit
    with pytest.raises(AudioError):
        decode_segment(bytes(data))


def test_flac_without_a_declared_length_is_checked_as_well() -> None:
    data = bytearray(by_soundfile("FLAC", "PCM_16", 32000))
    data[21:26] = (int.from_bytes(data[21:26], "big") >> 36 << 36).to_bytes(5, "big")
    whole, rate = decode_segment(bytes(data))
    assert len(whole) == SECONDS * rate
    data[len(data) // 2] ^= 1
    with pytest.raises(AudioError):
        decode_segment(bytes(data))


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_a_cut_file_is_an_error(form: str) -> None:
    data = by_soundfile(form, "PCM_16", 32000)
    with pytest.raises(AudioError):
        decode_segment(data[: len(data) // 2], 0.2, 1.5)


def test_a_coding_that_no_decoder_knows_is_an_error() -> None:
    data = wav(bytes(2000))
    data = data[:20] + b"\x21\x43" + data[22:]
    with pytest.raises(AudioError, match="no decoder knows its coding"):
        decode_segment(data)


def test_values_that_are_no_samples_are_an_error() -> None:
    file = io.BytesIO()
    sf.write(file, np.array([0.5, np.nan, 0.1]), 32000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="no sample"):
        decode_segment(file.getvalue())
