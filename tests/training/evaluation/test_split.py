from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from training.data import DataSettings, MixtureItem
from training.data.sampling.order import SequentialOrder
from training.evaluation.split import Split, read_split

SETTINGS = DataSettings(train=(MixtureItem("clotho"),), batch_size=2)


def captions(*texts: str, source: str | None = None) -> list[dict[str, object]]:
    return [{"text": text, "kind": "human", "onset": None, "offset": None, "source": source} for text in texts]


def split_of(*rows: dict[str, object]) -> Split:
    table = table_of(list(rows))
    order = SequentialOrder(table, "clotho/evaluation", SETTINGS, 2)
    return read_split(table, "clotho/evaluation", order, SETTINGS)


def test_captions_are_spelled_as_the_model_reads_them_and_belong_to_their_clip() -> None:
    first = row(0, split="evaluation", captions=captions("A DOG barks!", "a bark"))
    second = row(1, split="evaluation", captions=captions("rain"))
    other = row(2, split="development")
    found = split_of(first, other, second)
    assert found.clips == [first["clip_id"], second["clip_id"]]
    assert found.captions == ["a dog barks", "a bark", "rain"]
    assert found.clip_of.tolist() == [0, 0, 1]


def test_a_clip_in_several_windows_counts_once() -> None:
    windows = [row(0, split="evaluation", window=window, windows=2, captions=captions("rain")) for window in (0, 1)]
    assert split_of(*windows).captions == ["rain"]


def test_captions_of_duplicates_do_not_count() -> None:
    both = captions("rain") + captions("water", source="audiocaps/test/1")
    assert split_of(row(0, split="evaluation", captions=both)).captions == ["rain"]


def test_a_clip_without_a_caption_of_words_is_refused() -> None:
    with pytest.raises(InputError, match=r"clip 1\.x"):
        split_of(row(0, split="evaluation"), row(1, split="evaluation", captions=captions("...")))
