"""Reading sound from packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.audio import AudioForm
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


@pytest.fixture(scope="module", params=["flac", "wav"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackReader, Path]:
    """A reader of windows in either codec, and their pack."""
    folder = put(tmp_path_factory.mktemp(request.param) / "files", {})
    sf.write(folder / "long.flac", WAVE, RATE, subtype="PCM_16")
    settings_ = ProbeSettings(form=AudioForm(request.param), window_s=10.0, hop_s=10.0, tail_s=2.0)
    return probed(folder, settings_)[1], folder.parent / "files.build/packs/000000.pack"


@given(share=st.floats(0.01, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_bit_is_found_and_names_pack_and_clip(
    written: tuple[PackReader, Path], share: float, bit: int
) -> None:
    packs, pack = written
    whole = pack.read_bytes()
    data = bytearray(whole)
    data[int(share * len(data))] ^= 1 << bit
    pack.write_bytes(data)
    try:
        with pytest.raises(InputError, match=r"000000\.pack.*long\.flac"):
            packs.wave("x/all/long.flac", 0.0, 25.0)
    finally:
        pack.write_bytes(whole)


def test_the_bytes_of_a_window_are_compared_with_their_hash(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {})
    sf.write(folder / "long.flac", WAVE, RATE, subtype="PCM_16")
    _, packs = probed(folder)
    pack = tmp_path / "files.build/packs/000000.pack"
    data = bytearray(pack.read_bytes())
    assert packs.bytes("x/all/long.flac") == data
    data[20] ^= 1  # in the header, which has no checksum
    pack.write_bytes(data)
    with pytest.raises(InputError, match="is not what was written"):
        packs.bytes("x/all/long.flac")
