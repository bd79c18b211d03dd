"""Collectives over real processes: uneven and empty ranks, gradients, and errors that say who and what."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sharding.common.errors import InputError
from sharding.common.processes import leave
from tests.training.ranks import on_ranks
from training.engine.distributed import LocalGroup, TorchGroup, connect


def _rows_of(rank: int) -> int:
    return (3, 0, 2)[rank]


def _gather_and_differentiate(group: TorchGroup) -> dict[str, Any]:
    mine = torch.arange(_rows_of(group.rank) * 2.0).view(-1, 2) + 100 * group.rank
    mine.requires_grad_(group.rank != 1)  # the empty rank holds a constant
    everything = group.gather_rows(mine, "rows")
    (everything * (torch.arange(5.0)[:, None] + group.rank)).sum().backward()
    return {"rows": everything.detach(), "gradient": mine.grad}


def _gather_unequal_lengths(group: TorchGroup) -> dict[str, Any]:
    length = group.rank + 1
    tokens = torch.full((1, length, 2), float(group.rank + 1), dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(1, length, dtype=torch.bool)
    gathered, gathered_mask = group.gather_many((tokens, mask), "captions")
    gathered.sum().backward()
    return {"tokens": gathered.detach(), "mask": gathered_mask, "gradient": tokens.grad}


def _reduce(group: TorchGroup) -> dict[str, Any]:
    ones = torch.tensor([float(group.rank), -torch.inf])
    return {
        "sum": group.sum(torch.tensor([1, group.rank])),
        "max": group.max(torch.tensor([float(-group.rank)])),
        "logsumexp": group.logsumexp(ones),
        "objects": group.gather_objects({"rank": group.rank}),
        "bytes": group.bytes_received,
    }


def _disagree(group: TorchGroup) -> str:
    try:
        group.gather_rows(torch.zeros(1, 2, dtype=torch.float64 if group.rank else torch.float32), "sides")
    except InputError as error:
        return str(error)
    return "no error"


def _run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    group = TorchGroup()
    parts = (_gather_and_differentiate, _gather_unequal_lengths, _reduce, _disagree)
    torch.save({part.__name__: part(group) for part in parts}, f"{folder}/{rank}")
    dist.destroy_process_group()
    leave(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(_run, 3, str(folder))
    return [torch.load(folder / str(rank)) for rank in range(3)]


def test_gathered_rows_are_in_rank_order_and_gradients_return_to_their_ranks(results: list[dict[str, Any]]) -> None:
    found = [result["_gather_and_differentiate"] for result in results]
    for one in found:
        assert one["rows"][:, 0].tolist() == [0, 2, 4, 200, 202]
    # Row i is weighted with i + rank on each of the ranks 0, 1 and 2: 3 i + 3 in all.
    assert found[0]["gradient"][:, 0].tolist() == [3, 6, 9]
    assert found[1]["gradient"] is None
    assert found[2]["gradient"][:, 1].tolist() == [12, 15]


def test_captions_of_unequal_length_are_padded_with_zeros(results: list[dict[str, Any]]) -> None:
    for rank, result in enumerate(results):
        one = result["_gather_unequal_lengths"]
        assert one["tokens"].dtype == torch.float32
        assert one["tokens"][:, :, 0].tolist() == [[1, 0, 0], [2, 2, 0], [3, 3, 3]]
        assert one["mask"].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
        assert one["gradient"].dtype == torch.bfloat16
        assert one["gradient"].tolist() == [[[3.0, 3.0]] * (rank + 1)]


def test_reductions(results: list[dict[str, Any]]) -> None:
    for result in results:
        one = result["_reduce"]
        assert one["sum"].tolist() == [3, 3] and one["max"].tolist() == [0]
        assert float(one["logsumexp"][0]) == pytest.approx(float(torch.arange(3.0).logsumexp(0)))
        assert float(one["logsumexp"][1]) == -torch.inf
        assert one["objects"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert one["bytes"] > 0


def test_ranks_that_disagree_are_named(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert "rank 0" in result["_disagree"] and "float64" in result["_disagree"]
        assert "'sides'" in result["_disagree"]


def _leave_alone(rank: int, folder: str) -> None:
    patience = datetime.timedelta(seconds=2)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    if rank == 0:
        try:
            TorchGroup().sum(torch.zeros(1000), "loss")
        except RuntimeError as error:
            Path(folder, "error").write_text(str(error))
    else:
        Path(folder, "left").touch()
    leave(0)


def test_a_collective_that_a_rank_does_not_join_ends_and_says_which(tmp_path: Path) -> None:
    on_ranks(_leave_alone, 2, str(tmp_path))
    message = (tmp_path / "error").read_text()
    assert "'loss' (0.004 MB)" in message and "rank 0 of 2 over gloo" in message


def test_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = connect("gloo")
    assert isinstance(group, LocalGroup) and (group.rank, group.size) == (0, 1)
    rows = torch.ones(2, 3, requires_grad=True)
    group.gather_rows(rows).sum().backward()
    assert rows.grad is not None and group.gather_objects("x") == ["x"]
    assert group.sum(rows).tolist() == rows.tolist()
