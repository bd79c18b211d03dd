"""Reading ahead from an object store: the same batches, no byte that is not trained on, and as far as latency asks."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sharding.common.storage import Storage
from tests.conftest import S3Failures
from tests.training.data.loading import loader, samples
from tests.training.data.shards import Build
from training.data.read_ahead import BATCHES, Ahead, Arriving


@pytest.fixture
def remote(build: Build, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The same build in an object store."""
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    place = Storage(f"{s3}/{tmp_path.name}")
    for name in Storage(build.storage.url).list("shards"):
        place.write(name, build.storage.read(name))
    copy = Build.__new__(Build)
    copy.__dict__ |= build.__dict__ | {"storage": place}
    return copy


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_a_store_are_those_from_a_disk(remote: Build, whole: list[list[tuple]], workers: int) -> None:
    ours = loader(remote, workers=workers)
    assert [samples([batch]) for batch in ours.epoch(1)] == whole
    left = ours.epoch(0)
    next(left)
    assert [samples([batch]) for batch in ours.epoch(1, 2)] == whole[2:], "an epoch that was left is forgotten"


def test_a_node_reads_what_it_trains_on_and_only_once(
    remote: Build, s3_failures: S3Failures, whole: list[list[tuple]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.samples.LARGEST_GAP", -1)  # these samples are small, and lie close together
    asked: list[str] = []

    def note(request: dict[str, Any]) -> str | None:
        if request["REQUEST_METHOD"] == "GET":
            asked.append(request.get("HTTP_RANGE", ""))
        return None

    s3_failures.rule = note
    try:
        half = [loader(remote, rank=0, world=2) for _ in range(2)]
        first = [samples([batch]) for batch in half[0].epoch(1)]
        bounds = [tuple(map(int, each.removeprefix("bytes=").split("-"))) for each in asked]
        table = remote.table.to_pydict()
        size_of = dict(zip(table["clip_id"], table["audio_bytes"], strict=True))
        assert sum(end - begin + 1 for begin, end in bounds) < 0.8 * sum(size_of.values())
        assert len(asked) == len(set(asked)), "a clip of two batches is asked for once"
        asked.clear()
        assert [samples([batch]) for batch in half[1].epoch(1)] == first
        assert asked == []
    finally:
        s3_failures.rule = lambda request: None
    assert first == [step[: len(step) // 2] for step in whole]


@pytest.mark.parametrize(("request_s", "build_s", "batches"), [(0.005, 1.0, 2), (0.2, 0.1, 3), (60.0, 0.1, BATCHES)])
def test_how_far_is_read_ahead_follows_from_latency(request_s: float, build_s: float, batches: int) -> None:
    ahead: Ahead[str] = Ahead()
    ahead.times.note_request(request_s)
    ahead._build = build_s
    assert ahead.depth() == batches


def test_batches_are_begun_once_and_forgotten_with_their_epoch() -> None:
    ahead: Ahead[str] = Ahead()
    begun: list[tuple[int, int]] = []

    def begin(place: tuple[int, int]) -> Any:
        return lambda: begun.append(place) or f"read {place}"

    for step in (0, 2, 4):
        ahead.announce((1, step), 10, begin((1, step)))
    assert ahead.take((1, 0), begin((1, 0))) == "read (1, 0)"
    assert ahead.take((1, 2), begin((1, 2))) == "read (1, 2)"
    assert begun == [(1, 0), (1, 2), (1, 4)]
    assert ahead.take((2, 4), begin((2, 4))) == "read (2, 4)"
    assert not ahead._begun and not ahead._known


def test_a_sample_is_offered_while_it_is_being_read_and_to_no_other_process() -> None:
    arriving, read = Arriving(), Future[bytes]()
    arriving.add({"sha": read.result}, read)
    offered = arriving.get("sha")
    assert offered is not None and arriving.get("other") is None
    assert pickle.loads(pickle.dumps(arriving)).get("sha") is None
    child = os.fork()
    if child == 0:  # the threads that read did not come along
        os._exit(0 if arriving.get("sha") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    read.set_result(b"sound")
    assert offered() == b"sound" and arriving.get("sha") is None
