from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from training.search.nearest import RECALL, Lists, best_of, make_lists, nearest


def vectors(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Clusters, as sounds of one kind are."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((50, width))
    found = centres[draw.integers(50, size=count)] + 0.3 * draw.standard_normal((count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_comparing_every_vector_gives_the_best_in_order(entries: int, count: int, seed: int) -> None:
    values = np.round(vectors(entries, 4, seed), 1)  # with ties
    query = values[0]
    rows, scores = nearest(values, query, count)
    wanted = np.lexsort((np.arange(entries), -(values @ query)))[:count]
    assert rows.tolist() == wanted.tolist()
    np.testing.assert_allclose(scores, (values @ query)[wanted])


def test_a_mask_leaves_only_what_it_allows() -> None:
    values = vectors(30)
    mask = np.zeros(30, bool)
    mask[[3, 8, 20]] = True
    rows, _ = nearest(values, values[0], 10, mask=mask)
    assert sorted(rows.tolist()) == [3, 8, 20]
    assert nearest(values, values[0], 10, mask=np.zeros(30, bool))[0].tolist() == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path, dict[str, float]]:
    pytest.importorskip("faiss")
    values, path = vectors(30_000), tmp_path_factory.mktemp("lists") / "lists.faiss"
    return values, path, make_lists(values, vectors(100, seed=1), path)


def test_lists_find_what_comparing_every_vector_finds(many: tuple[np.ndarray, Path, dict[str, float]]) -> None:
    values, path, about = many
    assert about["recall"] >= RECALL and about["probes"] < about["lists"]
    lists = Lists.open(path, int(about["probes"]), *values.shape)
    queries = vectors(50, seed=2)
    best = best_of(values, queries, 10)
    shares = []
    for query, wanted in zip(queries, best, strict=True):
        rows, scores = nearest(values, query, 10, lists)
        np.testing.assert_allclose(scores, values[rows] @ query, rtol=1e-5)  # exact, though lists round
        shares.append(np.isin(wanted, rows).mean())
    assert np.mean(shares) > 0.95


def test_lists_obey_a_mask(many: tuple[np.ndarray, Path, dict[str, float]]) -> None:
    values, path, about = many
    lists = Lists.open(path, int(about["probes"]), *values.shape)
    mask = np.arange(len(values)) % 4 != 0  # more than are compared one by one
    rows, _ = nearest(values, values[0], 50, lists, mask)
    assert len(rows) == 50 and np.all(rows % 4 != 0)


def test_lists_find_what_a_filter_leaves(
    many: tuple[np.ndarray, Path, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values, path, about = many
    monkeypatch.setattr("training.search.nearest.FEW", 10)
    lists = Lists.open(path, int(about["probes"]), *values.shape)
    mask = np.arange(len(values)) % 50 == 0
    allowed, shares = np.flatnonzero(mask), []
    for query in vectors(20, seed=3):
        best = allowed[np.argsort(-(values[allowed] @ query))]
        rows, _ = nearest(values, query, 10, lists, mask)
        shares.append(np.isin(best[:10], rows).mean())
    assert np.mean(shares) > 0.95
    assert sorted(nearest(values, values[0], 700, lists, mask)[0]) == allowed.tolist()  # all 600, from every list


def test_the_same_vectors_give_the_same_lists(many: tuple[np.ndarray, Path, dict[str, float]], tmp_path: Path) -> None:
    values, path, about = many
    assert make_lists(values, vectors(100, seed=1), tmp_path / "again") == about
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_lists_of_another_index_or_damaged_ones_are_refused(
    many: tuple[np.ndarray, Path, dict[str, float]], tmp_path: Path
) -> None:
    values, path, _ = many
    with pytest.raises(InputError, match="not the lists of this index"):
        Lists.open(path, 1, len(values) + 1, values.shape[1])
    (tmp_path / "cut").write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="faiss cannot read it"):
        Lists.open(tmp_path / "cut", 1, *values.shape)
