from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from sharding.shards.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.training.search.indexes import ATTENTION, SHORT, indexed, untrained
from training.models.retriever import Retriever
from training.search.finding import Finder, Query
from training.search.models import WholeModel
from training.search.store import SoundIndex
from training.search.text_tower import LIBRARIES, IndexModel, add_text_tower

TEXTS = ["a low hum", "Some HISS!  and a whistle", "über", "hum " * 200]
WITHOUT_TORCH = """
import sys
from pathlib import Path
from training.search.finding import Finder, Query
from training.search.store import SoundIndex
from training.search.text_tower import IndexModel
index = SoundIndex.open(sys.argv[1])
model = IndexModel(index, lambda: sys.exit("the whole model was loaded"))
hits = Finder(index, model).find(Query(("hum",), without=("hiss",)))
assert hits and "torch" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return untrained([])


@pytest.fixture(scope="module")
def folder(build: Path, retriever: Retriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in LIBRARIES:
        pytest.importorskip(name)
    found = tmp_path_factory.mktemp("tower")
    indexed(retriever, Manifest.open(build), found, windows=SHORT)
    assert add_text_tower(retriever, found) is None
    return found


def no_model() -> NoReturn:
    raise AssertionError("the whole model was loaded")


def test_the_tower_answers_as_the_model_does(folder: Path, retriever: Retriever) -> None:
    index = SoundIndex.open(folder)
    model, whole = IndexModel(index, no_model), WholeModel(index, retriever)
    assert model.exact
    np.testing.assert_allclose(model.texts(TEXTS), whole.texts(TEXTS), atol=1e-5)
    query = Query(("a low hum",), without=("hiss",))
    ours, theirs = (Finder(index, each).find(query) for each in (model, whole))
    assert [hit.row for hit in ours] == [hit.row for hit in theirs]


def test_a_sound_loads_the_whole_model_once(folder: Path, retriever: Retriever) -> None:
    index, loads = SoundIndex.open(folder), []

    def load() -> WholeModel:
        loads.append(1)
        return WholeModel(index, retriever)

    model = IndexModel(index, load)
    for _ in range(2):
        model.sound(np.zeros(8000, np.float32), 16000)
    assert len(loads) == 1


def test_an_updated_index_keeps_its_tower(folder: Path, build: Path, retriever: Retriever) -> None:
    before = (folder / "index.json").read_bytes()
    indexed(retriever, Manifest.open(build), folder, windows=SHORT)
    assert add_text_tower(retriever, folder) is None
    assert (folder / "index.json").read_bytes() == before


def test_a_description_is_answered_without_torch(folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_head_with_attention_has_no_tower(build: Path, tmp_path: Path) -> None:
    retriever = untrained(ATTENTION)
    indexed(retriever, Manifest.open(build), tmp_path, ("clotho/evaluation",), SHORT)
    assert add_text_tower(retriever, tmp_path) == "its head scores descriptions and sounds together"
    index = SoundIndex.open(tmp_path)
    assert not IndexModel(index, lambda: WholeModel(index, retriever)).exact
