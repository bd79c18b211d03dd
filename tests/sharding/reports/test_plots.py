"""The picture of a build's figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.common.errors import InputError
from sharding.reports.plots import write_plots
from sharding.reports.stats import DatasetStats

DATASET = DatasetStats([0.5, 30.0, 4000.0], {"44100": 2, "8000": 1}, [3, 9], {"https://creativecommons.org/x" * 3: 3})
EMPTY = DatasetStats([], {}, [], {})


@pytest.mark.parametrize("datasets", [{"a": DATASET}, {"a": DATASET, "b": EMPTY}, {}])
def test_a_picture_is_drawn_also_of_datasets_without_clips(datasets: dict[str, DatasetStats], tmp_path: Path) -> None:
    write_plots(datasets, tmp_path / "deep/plot.png")
    assert (tmp_path / "deep/plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_suffix_chooses_the_format_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    write_plots({"a": DATASET}, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(InputError, match=r"plot\.xyz.*\n.*choose another --plot"):
        write_plots({"a": DATASET}, tmp_path / "plot.xyz")
    assert not (tmp_path / "plot.xyz").exists()
