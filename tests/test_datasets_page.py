"""Every example of `docs/DATASETS.md` is read by the reader that it is an example of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sharding.common.storage import Storage
from sharding.sources import DATASETS
from sharding.sources.exclusion import read_exclusion_list
from tests.conftest import REPOSITORY
from training.curation.annotations import Annotation
from training.curation.audioverse import read_audioverse
from training.data.pairs import SentencePairs
from training.data.tags import read_clusters
from training.evaluation.relevance import open_queries, open_relevance

BLOCK = re.compile(r"^```(\S+/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, below a folder for each dataset."""
    root = tmp_path_factory.mktemp("examples")
    for name, text in BLOCK.findall((REPOSITORY / "docs/DATASETS.md").read_text(encoding="utf-8")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_has_an_example_whose_clips_have_captions(name: str, examples: Path) -> None:
    catalogue = DATASETS[name].read(Storage(examples / name)).catalogue
    assert catalogue.num_rows and all(catalogue["captions"].to_pylist())
    assert set(catalogue["split"].to_pylist()) <= set(DATASETS[name].splits)


def test_annotations_and_sentences_are_read(examples: Path) -> None:
    folder = examples / "annotations"
    rain, dog = "clotho/development/Rain on a roof", "tacos/test/100032"
    found, unknown = read_audioverse(folder / "audioverse.json", [rain, dog])
    assert unknown == 0
    assert found[0] == Annotation(rain, "Rain falls on a tin roof for a while.", "Rain.", ("rain", " roof"))
    assert found[1] == Annotation(dog, None, "A dog barks.", ())
    assert read_clusters(folder / "clusters.json") == {"dog barking": 0, "bark": 0, "rain": 1}
    assert SentencePairs.open({"nli": str(folder / "nli.csv")}).table.num_rows == 1
    assert open_relevance(folder / "relevance.csv") == {
        "rain on a roof": {"Rain on a roof.wav": 2.0, "Thunder.wav": 1.0}
    }
    assert open_queries(folder / "queries.csv") == ["a dog barks in the distance"]
    for name in ("excluded.csv", "blacklist.json"):
        assert "freesound:117790" in read_exclusion_list(str(folder / name)).identities
