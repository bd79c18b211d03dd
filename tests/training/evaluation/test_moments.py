from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.data.shards import RATE, row, table_of, write_build
from tests.training.search.indexes import untrained
from training.evaluation.encoding import side_encoder
from training.evaluation.moments import (
    MOST_OVERLAP,
    Moment,
    average_precision,
    best_first,
    measure,
    moments_of,
    overlaps,
    retrieve_moments,
)


def timed(text: str, onset: float | None, offset: float | None, source: str | None = None) -> dict[str, Any]:
    return {"text": text, "kind": "human", "onset": onset, "offset": offset, "source": source}


def test_overlap_is_intersection_over_union() -> None:
    found = overlaps(np.array([[0.0, 10.0], [2.0, 4.0]]), np.array([[5.0, 15.0], [0.0, 4.0], [20.0, 30.0]]))
    np.testing.assert_allclose(found, [[1 / 3, 0.4, 0], [0, 0.5, 0]])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.floats(-1, 1)), min_size=1, max_size=30))
def test_kept_proposals_are_sorted_and_overlap_little(drawn: list[tuple[int, int, float]]) -> None:
    proposals = np.array([(start, start + length) for start, length, _ in drawn], float)
    scores = np.array([score for *_, score in drawn])
    kept = best_first(proposals, scores)
    assert scores[kept[0]] == scores.max() and np.all(np.diff(scores[kept]) <= 0)
    shared = overlaps(proposals[kept], proposals[kept])
    assert np.all(shared[~np.eye(len(kept), dtype=bool)] <= MOST_OVERLAP)


def test_average_precision_of_a_case_worked_by_hand() -> None:
    # The first proposal finds interval 0, the second finds nothing new, the third finds interval 1.
    shared = np.array([[0.9, 0.1], [0.8, 0.0], [0.0, 0.6]])
    assert average_precision(shared, 0.5) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(shared, 0.7) == pytest.approx((1 / 1) / 2)
    assert average_precision(shared, 0.95) == 0


def test_the_measures_of_a_caption() -> None:
    proposals = np.array([[0.0, 10.0], [10.0, 20.0], [10.0, 16.0], [0.0, 20.0]])
    moment = Moment("a", "a bark", np.array([[10.0, 16.0]]))
    right = measure(moment, proposals, np.array([0.1, 0.2, 0.9, 0.3]))
    assert (right["R1@0.5"], right["R1@0.7"], right["mAP"], right["reachable_R1@0.7"]) == (1, 1, 1, 1)
    near = measure(moment, proposals, np.array([0.1, 0.9, 0.2, 0.3]))  # the overlap is 0.6
    assert (near["R1@0.5"], near["R1@0.7"]) == (1, 0) and near["mAP"] == pytest.approx(0.3)
    assert (near["chance_R1@0.5"], near["chance_R1@0.7"]) == (0.5, 0.25)


def test_captions_without_times_or_of_a_duplicate_are_no_queries() -> None:
    written = [timed("All.", None, None), timed("A bark!", 1, 2), timed("a bark", 5, 6), timed("x", 1, 2, "other")]
    settings: Any = SimpleNamespace(lower=True, strip_punctuation=True)
    (moment,) = moments_of(table_of([row(1, captions=written), row(1, captions=written, window=1)]), settings)
    assert moment.text == "a bark" and moment.intervals.tolist() == [[1, 2], [5, 6]]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    from tests.training.small_runs import commit

    root = tmp_path_factory.mktemp("timed")
    rows = [
        row(k, "tacos", "test", duration_s=6.0, captions=[timed("Noise.", 1.0 + k, 3.0 + k), timed("All.", None, None)])
        for k in range(3)
    ]
    built = write_build(root, [*rows, row(9, duration_s=1.0, index=0)])
    commit(root, built.table.to_pylist())
    assert RATE == 32000
    return Manifest.open(root)


def test_every_caption_with_times_is_looked_for_in_its_own_recording(recordings: Manifest) -> None:
    retriever = untrained([])
    encoder = side_encoder(retriever.model, retriever.recipe.data, torch.device("cpu"))
    found = retrieve_moments(encoder, recordings, "tacos/test")
    assert (found["clips"], found["captions"]) == (3, 3)
    assert 0 < found["chance_R1@0.7"] < found["chance_R1@0.5"] < 1 and found["reachable_R1@0.7"] == 1
    assert 0 <= found["R1@0.7"] <= found["R1@0.5"] <= 1
    with pytest.raises(InputError, match="no captions with times"):
        retrieve_moments(encoder, recordings, "clotho/development")


def test_the_command_prints_the_measures(recordings: Manifest, tmp_path: Path, capsys: Any) -> None:
    from tests.training.search.indexes import exported
    from training.cli import main

    model = exported(untrained([]), tmp_path / "model")
    assert main(["moments", str(model), "--shards", recordings.storage.url, "--split", "tacos/test"]) == 0
    shown = capsys.readouterr().out
    assert "3 captions with times of 3 recordings of tacos/test" in shown and "R1@0.7" in shown
