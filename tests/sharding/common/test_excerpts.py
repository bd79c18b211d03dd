"""Players and pictures inside HTML pages."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile as sf

from sharding.common.excerpts import excerpt, picture, player, spectrogram
from sharding.demo.waves import RATE
from tests.sharding.reports.conftest import tone


def test_a_player_holds_the_sound_as_mp3() -> None:
    wave = tone(9, 2.0)
    kind, _, body = player(wave, RATE).partition(";base64,")
    assert kind == "data:audio/mpeg"
    decoded, rate = excerpt(io.BytesIO(base64.b64decode(body)), 10.0)
    assert len(decoded) / rate == pytest.approx(len(wave) / RATE, abs=0.15)


def test_an_excerpt_is_a_part_of_the_file_in_mono() -> None:
    ramp = np.linspace(0, 0.5, 8000, dtype=np.float32)
    file = io.BytesIO()
    sf.write(file, np.stack([ramp, np.zeros_like(ramp)], axis=1), 8000, format="WAV", subtype="FLOAT")
    file.seek(0)
    wave, rate = excerpt(file, 0.25, start_s=0.5)
    assert rate == 8000 and wave.dtype == np.float32
    assert np.allclose(wave, ramp[4000:6000] / 2)
    file.seek(0)
    assert len(excerpt(file, 1.0, start_s=5.0)[0]) == 0  # beyond the end


def test_pictures_are_png_and_even_a_very_short_sound_has_one() -> None:
    assert spectrogram(tone(9, 2.0)[:100], RATE).startswith("data:image/png;base64,")
    png = base64.b64decode(picture(np.arange(6.0).reshape(2, 3), 0, 5, stretch=4).partition(",")[2])
    assert png.startswith(b"\x89PNG")
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    assert (width, height) == (3, 8)
