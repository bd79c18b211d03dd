"""The examples run and do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples import add_a_head, loader_alone, search_your_folder, your_own_sounds
from training.models.heads import HEADS


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    manifest = your_own_sounds.main(folder)
    assert manifest.table.num_rows == 24
    return folder / "shards"


def test_the_loader_gives_every_clip_once(shards: Path) -> None:
    assert loader_alone.main(str(shards), "mine/train") == 5  # 21 clips in batches of 4; the last one is dropped
    one = [batch.keys for batch in loader_alone.batches(str(shards), "mine/train")]
    parts = [list(loader_alone.batches(str(shards), "mine/train", rank=rank, world=2)) for rank in (0, 1)]
    assert one == [first.keys + second.keys for first, second in zip(*parts, strict=True)]


def test_a_head_is_one_file_and_one_registry_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "best-segment", "")  # so that the head that the example registers is forgotten again
    scores = add_a_head.main()
    assert scores.shape == (3, 2) and bool((scores.abs() <= 1 + 1e-6).all())
    torch.testing.assert_close(scores, add_a_head.main())


def test_a_folder_can_be_searched_by_describing_a_sound(tmp_path: Path) -> None:
    assert search_your_folder.main(tmp_path, "a whistle")[0] == "a whistle"
