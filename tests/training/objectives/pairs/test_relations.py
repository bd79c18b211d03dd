"""Positive, left out, or negative: the definition pair by pair, on any ids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.objectives.pairs.dense import relations
from training.objectives.pairs.relations import CAPTION, CLIP, GROUP, KIN, stack_ids

ids = st.lists(st.tuples(*(st.integers(-(2**63), -(2**63) + 3),) * 4), min_size=0, max_size=12)


def by_definition(text: tuple[int, ...], audio: tuple[int, ...], positives: str) -> int:
    if text[CLIP] == audio[CLIP] or (positives == "clip or caption" and text[CAPTION] == audio[CAPTION]):
        return 1
    return -1 if text[GROUP] == audio[GROUP] or text[KIN] == audio[KIN] else 0


@settings(max_examples=150, deadline=None)
@given(ids, ids, st.sampled_from(["clip or caption", "clip"]))
def test_relations_are_the_definition(
    texts: list[tuple[int, ...]], audios: list[tuple[int, ...]], positives: str
) -> None:
    rows = torch.tensor(texts, dtype=torch.int64).view(-1, 4)
    columns = torch.tensor(audios, dtype=torch.int64).view(-1, 4)
    tile = relations(rows, columns, positives)
    assert tile.dtype == torch.int8
    assert tile.tolist() == [[by_definition(t, a, positives) for a in audios] for t in texts]


def test_ids_of_a_batch_keep_64_bits() -> None:
    clip = torch.tensor([2**62 + 1, -(2**63)])
    assert stack_ids(clip, clip, clip, clip)[:, CLIP].tolist() == clip.tolist()


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InputError, match="unknown rule for positive pairs"):
        relations(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64), "caption")
