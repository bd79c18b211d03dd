"""The examples run and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from examples import add_a_head, loader_alone, search_your_folder, your_own_sounds
from sharding.shards.manifest import Manifest
from training import cli
from training.config.loading import load_recipe
from training.engine.launch import ranks
from training.models.heads import HEADS
from training.run.loop import fit
from training.search.store import SoundIndex


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


def test_a_folder_of_ones_own_can_be_searched_by_describing_a_sound(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a small model that was trained in seconds; sounds that come later are found, and the old ones kept."""
    changes = ["data.train=[{split: mine/train}]", "data.batch_size=8", "data.workers=0", "validation.split=null"]
    recipe = load_recipe("demo", [*changes, "optimizer.steps=60", "optimizer.warmup_epochs=0"])
    with ranks() as group:
        model = str(fit(recipe, Manifest.open(str(shards)), tmp_path / "run", group)["export"])
    folder, work = tmp_path / "sounds é", tmp_path / "work"
    your_own_sounds.write_sounds(folder / "deep", takes=1)
    (folder / "deep/clips.csv").unlink()
    first = search_your_folder.main(folder, work, "a whistle", model)
    assert first[0] == str(folder / "deep/a_whistle_0.wav") and len(first) == 3

    your_own_sounds.write_sounds(tmp_path / "more", takes=2)
    (tmp_path / "more/a_whistle_1.wav").rename(folder / "ümlaut.wav")
    capsys.readouterr()
    again = search_your_folder.main(folder, work, "a whistle", model)
    assert set(again[:2]) == {first[0], str(folder / "ümlaut.wav")} and len(again) == 4
    assert cli.main(["search", str(work / "index"), "a whistle"]) == 0
    assert "ümlaut.wav" in capsys.readouterr().out
    if importlib.util.find_spec("onnxruntime") is not None:
        assert "tower" in SoundIndex.open(work / "index").about
