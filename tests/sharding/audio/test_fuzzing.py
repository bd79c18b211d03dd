"""Files that were changed at random: every one has a fate, and none harms the decoder's process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.sharding.audio.odd_sounds import ANY_LENGTH, NEVER, probed, put


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
