"""What a recipe cannot ask of the retrieval task."""

from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from tests.training.small_runs import TREE, small_recipe
from training.tasks.retrieval import assemble


def test_masks_on_a_wave_are_refused() -> None:
    wave = {"encoder": "data2vec", "source": "random", "width": 16, "depth": 1, "heads": 2, "segment_s": 1.0}
    tree = TREE | {"audio": wave}
    with pytest.raises(InputError, match="masks spectrograms"):
        assemble(small_recipe([], tree), ["a hum"])
    assemble(small_recipe(["data.masking.time_masks=0", "data.masking.freq_masks=0"], tree), ["a hum"])
