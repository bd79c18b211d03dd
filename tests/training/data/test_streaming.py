"""The plain webdataset pipeline against the exact loader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from sharding.common.errors import InputError
from sharding.schema import sample_key
from tests.training.data.letters import Letters
from tests.training.data.loading import AUDIO, SETTINGS, loader, samples
from tests.training.data.shards import Build
from training.data import AugmentSettings, MixtureItem
from training.data.streaming import stream


def test_streaming_gives_the_same_samples(build: Build) -> None:
    """Without an index: every clip once, and the transforms of the exact loader."""
    plain = replace(
        SETTINGS,
        train=(MixtureItem("clotho/development"),),
        batch_size=10,
        augment=AugmentSettings(gain_db=6.0, noise=0.5),
    )
    urls = [str(build.storage.local / "shards" / name) for name in sorted(set(build.table["shard"].to_pylist()))]
    streamed = samples(list(stream(urls, plain, AUDIO, Letters(), epoch=0, seed=11)))
    exact = samples(list(loader(build, plain).epoch(0)))
    assert len(streamed) == 30 and sorted(streamed) == sorted(exact)


def test_streaming_is_split_over_workers_and_skips_other_captions(build: Build) -> None:
    items = (MixtureItem("clotho/development", captions=("label",)), MixtureItem("wavcaps", captions=("human",)))
    plain = replace(SETTINGS, train=items, batch_size=3, last="keep", augment=AugmentSettings())
    urls = [str(path) for path in sorted((build.storage.local / "shards").glob("*.tar"))]
    for workers in (0, 2):
        batches = DataLoader(stream(urls, plain, AUDIO, Letters()), batch_size=None, num_workers=workers)
        keys = [key for batch in batches for key in batch.keys]
        assert sorted(keys) == sorted(key for key in build.table["key"].to_pylist() if key.startswith("wavcaps"))


@pytest.mark.parametrize("split", ["a split.2", "été", "x_y-z", "犬@1"])
def test_a_split_of_any_name_is_streamed(build: Build, tmp_path: Path, split: str) -> None:
    shard = next(iter(sorted((build.storage.local / "shards").glob("clotho-development-*.tar"))))
    named = tmp_path / f"clotho-{sample_key(split)}-000000.tar"
    named.write_bytes(shard.read_bytes())
    plain = replace(SETTINGS, train=(MixtureItem(f"clotho/{split}"),), batch_size=3, augment=AugmentSettings())
    assert len(list(stream([str(named)], plain, AUDIO, Letters()))) > 0


def test_streaming_without_shards_is_refused() -> None:
    with pytest.raises(InputError, match="no shards to stream"):
        stream([], SETTINGS, AUDIO, Letters())


@pytest.mark.parametrize("split", ["clotho/developmnt", "cloto", "wavcaps/clotho-development"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistyped_split_is_refused_with_those_that_are_there(build: Build, split: str, workers: int) -> None:
    urls = [str(path) for path in sorted((build.storage.local / "shards").glob("*.tar"))]
    items = (MixtureItem("clotho/development"), MixtureItem(split))
    with pytest.raises(InputError, match="no shard holds") as caught:
        list(DataLoader(stream(urls, replace(SETTINGS, train=items), AUDIO, Letters()), None, num_workers=workers))
    assert caught.value.value == split and "clotho-development" in str(caught.value)


def test_a_stream_that_would_be_empty_says_why(build: Build, tmp_path: Path) -> None:
    shard = next(iter(sorted((build.storage.local / "shards").glob("clotho-development-*.tar"))))
    renamed = tmp_path / "renamed.tar"  # nothing in its name says which split it holds
    renamed.write_bytes(shard.read_bytes())
    unlike = replace(SETTINGS, train=(MixtureItem("wavcaps"),))
    with pytest.raises(InputError, match="no sample of the shards is in the mixture"):
        list(stream([str(renamed)], unlike, AUDIO, Letters()))
    labels = replace(SETTINGS, train=(MixtureItem("clotho/development", captions=("label",)),))
    with pytest.raises(InputError, match="kind label"):
        list(stream([str(shard)], labels, AUDIO, Letters()))
    large = replace(SETTINGS, train=(MixtureItem("clotho/development"),), batch_size=1000)
    with pytest.raises(InputError, match="less than one batch of 1000"):
        list(stream([str(shard)], large, AUDIO, Letters()))
