"""What a recipe cannot ask of the retrieval task, and what its head is told."""

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


def test_a_head_is_told_of_the_batch_that_it_trains_with() -> None:
    head = ["head={name: token-attention, dim: 64, heads: 2}"]
    few, _ = assemble(small_recipe([*head, "data.batch_size=12"]), ["a hum"])
    many, _ = assemble(small_recipe([*head, "data.batch_size=13"]), ["a hum"])
    assert few.head.moves_layers
    assert not many.head.moves_layers
