"""Tags of clips as sets of clusters: from labels, from a file in the published form, and in batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharding.common.errors import InputError
from tests.training.data.loading import SETTINGS
from tests.training.data.shards import row, table_of
from training.data.settings import DataSettings, MixtureItem
from training.data.tags import TagVocabulary, read_clusters, read_vocabulary, split_tags


def caption(text: str, kind: str) -> dict[str, Any]:
    return {"text": text, "kind": kind, "onset": None, "offset": None, "source": None}


TABLE = table_of(
    [
        row(0, captions=[caption("Dog, Bark", "label"), caption("A dog barks.", "human")]),
        row(1, captions=[caption("bark", "label")]),
        row(2, captions=[caption("Rain", "label")]),
        row(3, split="evaluation", captions=[caption("Cat", "label")]),
    ]
)


def settings(**changes: Any) -> DataSettings:
    return replace(SETTINGS, **{"train": (MixtureItem("clotho/development"),), **changes})


def test_labels_are_clusters_of_their_own() -> None:
    vocabulary = read_vocabulary(TABLE, settings(tags="labels"))
    assert dict(vocabulary.clusters) == {"bark": 0, "dog": 1, "rain": 2}, "of the training splits alone"
    words = vocabulary.words([["Dog, Bark"], ["BARK"], []], ["", "", ""], settings(tags="labels"))
    assert words.tolist() == [[3], [1], [0]]


def test_a_file_joins_tags_and_leaves_some_out(tmp_path: Path) -> None:
    file = tmp_path / "clusters.json"
    file.write_text(
        json.dumps({"Dog": {"cluster_index": 65}, "bark": {"cluster_index": 65}, "rain": {"cluster_index": None}})
    )
    vocabulary = read_vocabulary(TABLE, settings(tags=str(file)))
    words = vocabulary.words([["Dog"], ["bark"], ["Rain"]], ["", "", ""], settings())
    assert words.shape == (3, 2) and words.tolist() == [[0, 2], [0, 2], [0, 0]]


def test_a_tag_with_a_comma_may_be_one_of_the_file() -> None:
    assert split_tags(["Male speech, man speaking"]) == ["male speech, man speaking", "male speech", "man speaking"]


def test_only_samples_drawn_with_a_label_have_tags() -> None:
    vocabulary = read_vocabulary(TABLE, settings(tags="labels", tagged="label captions"))
    words = vocabulary.words([["Dog, Bark"], ["Dog, Bark"]], ["dog bark", "a dog barks"], settings())
    assert words.tolist() == [[3], [0]]


def test_without_tags_the_words_have_no_columns() -> None:
    assert TagVocabulary().words([["Dog"]], [""], settings()).shape == (1, 0)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"a": 1}', '{"a": {"cluster_index": -1}}', '{"a": {"cluster_index": true}}', '{"a": {}}']
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clusters.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"clusters|cluster_index"):
        read_clusters(file)


def test_data_without_labels_are_refused() -> None:
    table = table_of([row(0, captions=[caption("A dog barks.", "human")])])
    with pytest.raises(InputError, match="no clip has a tag"):
        read_vocabulary(table, settings(tags="labels"))
