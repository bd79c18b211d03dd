"""The forms of sound in shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sharding.audio import AudioForm, mix, quantise
from sharding.common.errors import InputError


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"codec": "mp3"}, "codec"),
        ({"rate": 10}, "rate"),
        ({"codec": "opus", "rate": 32000}, "Opus"),
        ({"channels": 3}, "channels"),
    ],
)
def test_forms_that_do_not_exist_are_refused_with_a_remedy(fields: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        AudioForm(**fields)  # type: ignore[arg-type]
    assert caught.value.remedy


def test_the_original_form_encodes_windows_as_flac() -> None:
    assert AudioForm("original").window_codec == "flac"
    assert AudioForm("wav").window_codec == "wav"


@given(given_=st.integers(1, 6), wanted=st.integers(1, 2), seed=st.integers(0, 99))
def test_other_numbers_of_channels_become_the_mean(given_: int, wanted: int, seed: int) -> None:
    block = np.random.default_rng(seed).uniform(-1, 1, (50, given_)).astype(np.float32)
    mixed = mix(block, wanted)
    assert mixed.shape == (50, wanted) and mixed.dtype == np.float32
    expected = block if given_ == wanted else np.repeat(block.mean(axis=1, keepdims=True), wanted, axis=1)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


@given(arrays.arrays(np.int16, st.integers(0, 200)))
def test_samples_of_16_bits_are_quantised_without_loss(samples: np.ndarray) -> None:
    assert np.array_equal(quantise(samples.astype(np.float32) / 32768), samples)


def test_values_beyond_full_scale_are_clipped() -> None:
    assert quantise(np.array([-5.0, 5.0, 1.0], np.float32)).tolist() == [-32768, 32767, 32767]
