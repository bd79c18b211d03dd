"""Parts of files in memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.audio import decode_segment
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


def test_segments_of_codings_that_cannot_seek() -> None:
    data = by_soundfile("WAV", "GSM610", 8000)
    whole, _ = decode_segment(data)
    part, rate = decode_segment(data, 0.5, 0.25)
    assert np.array_equal(part, whole[4000 : 4000 + round(0.25 * rate)])
