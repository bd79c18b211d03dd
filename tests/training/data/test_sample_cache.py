"""Samples of an object store that a machine keeps: what is kept, how much, and that damage is noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.shards.checksum import fast_checksum
from training.data.sample_cache import PARTS, SampleCache


def cache_of(folder: Path, limit: int, build_bytes: int) -> SampleCache:
    return SampleCache(folder, limit, build_bytes)


def sample(number: int, size: int = 1000) -> tuple[str, int, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return hashlib.sha256(data).hexdigest(), fast_checksum(data), data


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_kept_sample_comes_back_until_it_is_damaged(tmp_path: Path) -> None:
    cache, (sha256, xxh3, data) = cache_of(tmp_path, 10**9, 10**6), sample(0)
    assert cache.get(sha256, xxh3) is None
    cache.put(sha256, xxh3, data)
    assert cache.get(sha256, xxh3) == data
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.write_bytes(data[:-1] + b"!")
    assert cache.get(sha256, xxh3) is None
    assert not file.exists()


def test_bytes_that_are_not_the_sample_are_never_kept(tmp_path: Path) -> None:
    cache, (sha256, xxh3, data) = cache_of(tmp_path, 10**9, 10**6), sample(0)
    cache.put(sha256, xxh3, data[:-1])
    assert kept_bytes(tmp_path) == 0


def test_a_build_larger_than_the_cache_keeps_the_same_share_in_every_epoch(tmp_path: Path) -> None:
    samples = [sample(number) for number in range(2000)]
    cache = cache_of(tmp_path, 1_000_000, sum(len(data) for _, _, data in samples))
    found = []
    for epoch in range(3):
        hits = 0
        for number in np.random.default_rng(epoch).permutation(len(samples)):
            sha256, xxh3, data = samples[number]
            if cache.get(sha256, xxh3) is None:
                cache.put(sha256, xxh3, data)
            else:
                hits += 1
        found.append(hits / len(samples))
        assert kept_bytes(tmp_path) <= 1_100_000
    assert found[0] == 0 and all(0.35 < share < 0.5 for share in found[1:])


@settings(max_examples=10, deadline=None)
@given(st.integers(3, 20), st.integers(0, 1000))
def test_the_samples_of_other_builds_make_room(tmp_path_factory: object, parts: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("cache")  # type: ignore[attr-defined]
    limit = parts * 2000 * PARTS
    for build in range(2):
        cache = cache_of(folder, limit, limit)
        for number in range(300):
            cache.put(*sample(seed + 1000 * build + number, 2000))
    assert kept_bytes(folder) <= 1.15 * limit


def test_a_disk_that_fails_ends_the_use_of_the_cache_alone(tmp_path: Path, capsys: object) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache, (sha256, xxh3, data) = cache_of(tmp_path / "file/below", 10**9, 10**6), sample(0)
    cache.put(sha256, xxh3, data)
    assert "not kept" in capsys.readouterr().err  # type: ignore[attr-defined]
    assert cache.get(sha256, xxh3) is None
