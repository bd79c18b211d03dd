"""Stored vectors come back as they were, part by part, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.data.stored import PART, StoredVectors, finished_parts, write_part

COUNT = PART + 10


def items() -> list[dict[str, Tensor]]:
    """Items with 1 to 4 rows of one column and 1 of the other."""
    torch.manual_seed(0)
    return [{"tokens": torch.randn(1 + number % 4, 3), "pooled": torch.randn(1, 2)} for number in range(COUNT)]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    for number in range(2):
        write_part(tmp_path, number, items()[number * PART : (number + 1) * PART])
    return tmp_path


def ids() -> np.ndarray:
    return np.random.default_rng(0).permutation(10**6)[:COUNT].astype(np.int64)


def test_items_come_back_padded_with_their_mask(stored: Path) -> None:
    reader, known = StoredVectors(stored, ids()), items()
    chosen = [3, PART + 1, 0, PART - 1, 3]
    found = reader.batch(ids()[chosen])
    tokens, mask = found["tokens"]
    assert tokens.shape == (5, 4, 3)
    for row, number in enumerate(chosen):
        length = len(known[number]["tokens"])
        assert mask[row].tolist() == [True] * length + [False] * (4 - length)
        assert torch.equal(tokens[row, :length], known[number]["tokens"])
        assert not tokens[row, length:].any()
        assert torch.equal(found["pooled"][0][row], known[number]["pooled"])
    assert reader.batch(ids()[:0])["tokens"][0].shape[0] == 0
    with pytest.raises(InputError, match="no stored vectors"):
        reader.batch(np.array([10**7], np.int64))


def test_a_changed_byte_is_noticed_and_only_that_part_is_computed_again(stored: Path) -> None:
    first, second = (finished_parts(stored)[number] for number in range(2))
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    with pytest.raises(InputError, match="missing or damaged"):
        StoredVectors(stored, ids())
    assert finished_parts(stored) == {0: first}
    assert not second.exists()


def test_a_part_of_a_killed_writer_does_not_count(stored: Path) -> None:
    (stored / "000002-0123456789abcdef.safetensors").write_bytes(b"half")
    (stored / "notes.txt").write_text("somebody's own")
    assert sorted(finished_parts(stored)) == [0, 1]
    assert (stored / "notes.txt").exists()
