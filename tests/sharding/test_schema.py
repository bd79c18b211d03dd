import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.schema import parse_key, sample_key, stable_id

# No lone surrogates: they are no text that a file name in UTF-8 can hold.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ODD = st.sampled_from(
    ["clotho/development/20100402.Brugge.street.04", "a@00001", "a=2E", "a~b", "a/b", "a b", "a+b", " x ", "é", "日"]
)
WINDOWS = st.tuples(st.integers(0, 99999), st.integers(1, 100000)).filter(lambda pair: pair[0] < pair[1])


@given(NAMES | ODD, WINDOWS)
def test_a_key_gives_back_its_clip_and_window(clip_id: str, window: tuple[int, int]) -> None:
    key = sample_key(clip_id, *window)
    assert parse_key(key) == (clip_id, window[0] if window[1] > 1 else 0)


@given(NAMES | ODD, WINDOWS)
def test_a_key_is_one_plain_name_without_dots(clip_id: str, window: tuple[int, int]) -> None:
    key = sample_key(clip_id, *window)
    assert key.isascii() and not set(key) & set("./\\ \n\0")


@given(st.lists(st.tuples(NAMES | ODD, st.integers(0, 9)), unique=True, min_size=2, max_size=8))
def test_keys_do_not_collide(samples: list[tuple[str, int]]) -> None:
    assert len({sample_key(clip, window, 10) for clip, window in samples}) == len(samples)
    whole = {clip for clip, _ in samples}
    assert len({sample_key(clip) for clip in whole} | {sample_key(c, w, 10) for c, w in samples}) == len(whole) + len(
        samples
    )


@pytest.mark.parametrize("key", ["=FF", "a=F", "a=ZZ", "a@b", "é"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="not a sample key"):
        parse_key(key)


def test_stable_ids_are_the_same_in_every_process() -> None:
    program = "from sharding.schema import stable_id; print(stable_id(chr(233)))"
    command = [sys.executable, "-c", program]
    ids = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in "12"
    }
    assert ids == {f"{stable_id(chr(233))}\n".encode()}
