"""Reading sound from packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.probe.clip import ProbeSettings
from sharding.probe.packs import PackReader
from tests.sharding.audio.odd_sounds import probed, put
from tests.sharding.corpora import RATE, noise

WAVE = noise(3, 25.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("packs") / "files", {})


@pytest.fixture(scope="module")
def packs(folder: Path) -> PackReader:
    sf.write(folder / "long.flac", WAVE, RATE, subtype="PCM_16")
    return probed(folder, ProbeSettings(window_s=10.0, hop_s=10.0, tail_s=2.0))[1]


@given(start=st.floats(0, 26), length=st.floats(0.01, 15))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sound_is_read_across_windows(packs: PackReader, start: float, length: float) -> None:
    found = packs.wave("x/all/long.flac", start, length, RATE)
    first = round(start * RATE)
    expected = WAVE[first : first + round(length * RATE)]
    assert abs(len(found) - len(expected)) <= 1
    size = min(len(found), len(expected))
    np.testing.assert_allclose(found[:size], expected[:size], atol=1.1 / 32768)


def test_a_damaged_pack_names_file_and_clip(packs: PackReader, folder: Path) -> None:
    pack = folder.parent / "files.build/packs/000000.pack"
    data = bytearray(pack.read_bytes())
    data[:4] = b"\0\0\0\0"
    whole = pack.read_bytes()
    pack.write_bytes(data)
    try:
        with pytest.raises(InputError, match=r"000000\.pack.*long\.flac"):
            packs.wave("x/all/long.flac", 0.0, 1.0)
    finally:
        pack.write_bytes(whole)
