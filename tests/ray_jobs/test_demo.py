from pathlib import Path

import pytest

from ray_jobs.demo import run
from sharding.common.errors import InputError


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/mine.wav").write_bytes(b"mine")
    with pytest.raises(InputError, match="not made by a demo"):
        run(tmp_path, seed=0, clips=60)
    assert (tmp_path / "corpus/mine.wav").read_bytes() == b"mine"
