"""Files that were changed at random: every one has a fate, and none harms the decoder's process."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.audio import AudioError, Source
from sharding.audio.formats import recognise
from sharding.audio.structure import check_complete
from tests.sharding.audio.odd_sounds import ANY_LENGTH, EVERY, NEVER, by_pyav, probed, put

LONGEST_S = 5.0  # for checking a file of a few hundred kilobytes, on a busy machine
WALKED = {
    **EVERY,
    "sound.flv": lambda: by_pyav("flv", "aac"),
    "sound.ts": lambda: by_pyav("mpegts", "aac"),
    "sound.tta": lambda: by_pyav("tta", "tta"),
    "sound.ac3": lambda: by_pyav("ac3", "ac3", 48000),
    "sound.rm": lambda: by_pyav("rm", "ac3", 48000),
    "sound.voc": lambda: by_pyav("voc", "pcm_s16le"),
    "film.avi": lambda: by_pyav("avi", "pcm_s16le", video="mpeg4"),
}


@dataclass(frozen=True)
class Change:
    """``new`` takes the place of ``length`` bytes at a share of the file, or at one of its first bytes."""

    share: float
    early: bool
    length: int
    new: bytes

    def apply(self, data: bytes) -> bytes:
        at = int(self.share * (min(len(data), 400) if self.early else len(data)))
        return data[:at] + self.new + data[at + self.length :]


# Lengths and counts that headers may state
NUMBERS = st.sampled_from([0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 1 << 62, (1 << 64) - 1])
NEW = st.one_of(
    st.binary(max_size=12),
    st.tuples(NUMBERS, st.sampled_from([4, 8]), st.sampled_from(["little", "big"])).map(
        lambda number: (number[0] % (1 << 8 * number[1])).to_bytes(number[1], number[2])
    ),
)
CHANGES = st.lists(
    st.builds(Change, st.floats(0, 1, exclude_max=True), st.booleans(), st.sampled_from([0, 1, 4, 8, 300, 10**6]), NEW),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def walked() -> dict[str, bytes]:
    return {name: make() for name, make in WALKED.items()}


def assert_walked(data: bytes) -> None:
    begun = time.monotonic()
    source = Source(data, len(data))
    try:
        form, offset = recognise(source)
        extent = check_complete(form.name, source, offset)
        assert extent.end is None or 0 <= extent.end <= len(data)
        assert extent.frames >= 0
    except AudioError:
        pass
    assert time.monotonic() - begun < LONGEST_S


@given(name=st.sampled_from(sorted(WALKED)), changes=CHANGES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_file_is_checked_in_time_or_refused_with_a_class(
    walked: dict[str, bytes], name: str, changes: list[Change]
) -> None:
    assert_walked(functools.reduce(lambda data, change: change.apply(data), changes, walked[name]))


@pytest.mark.slow
@given(name=st.sampled_from(sorted(WALKED)), changes=CHANGES)
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_changed_files_are_checked_in_time_or_refused_with_a_class(
    walked: dict[str, bytes], name: str, changes: list[Change]
) -> None:
    assert_walked(functools.reduce(lambda data, change: change.apply(data), changes, walked[name]))


@pytest.mark.slow
def test_changed_real_recordings_are_checked_in_time_or_refused_with_a_class(shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    files = [path for path in sorted((shared_data / "audio").rglob("*")) if path.is_file() and path.suffix != ".csv"]
    deadline = time.monotonic() + 60
    for path in rng.permutation(np.array([str(path) for path in files]))[:300]:
        data = Path(path).read_bytes()[: 1 << 20]
        for _ in range(20):
            reach = len(data) if rng.random() < 0.5 else min(len(data), 400)
            changed = bytearray(data)
            at = int(rng.integers(0, max(reach, 1)))
            changed[at : at + int(rng.choice([0, 1, 4, 8]))] = rng.bytes(int(rng.choice([0, 1, 4, 8])))
            assert_walked(bytes(changed))
        if time.monotonic() > deadline:
            break


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_changed_files_never_harm_the_decoders_process(tmp_path: Path, sounds: dict[str, bytes], seed: int) -> None:
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    for name, data in sounds.items():
        for number in range(25):
            reach = len(data) if number % 3 == 0 else min(len(data), 300)
            changed = bytearray(data)
            for _ in range(int(rng.integers(1, 4))):
                at, width = int(rng.integers(0, reach)), int(rng.choice([1, 2, 4, 8, 40]))
                changed[at : at + width] = (bytes(width), b"\xff" * width, rng.bytes(width))[int(rng.integers(0, 3))]
            files[f"{number}@{name}"] = bytes(changed)
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    assert [(n, row["detail"]) for n, row in facts.items() if row["error"] in NEVER] == []
