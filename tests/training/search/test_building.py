from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.shards.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.training.search.indexes import ATTENTION, SHORT, exported, indexed, untrained
from tests.training.small_runs import commit, write_sounds
from training.models.retriever import Retriever
from training.search import entries as entries_module
from training.search.entries import Windows
from training.search.reading import drawn
from training.search.store import ABOUT, PARTS, SoundIndex
from training.search.vectors import fingerprint


@pytest.fixture(scope="module")
def manifest(build: Path) -> Manifest:
    return Manifest.open(build)


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return untrained([])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "PART", 16)


@pytest.fixture(scope="module")
def whole(retriever: Retriever, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that nothing disturbed, of parts of 16 entries."""
    folder = tmp_path_factory.mktemp("whole") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries_module, "PART", 16)
        indexed(retriever, manifest, folder, windows=SHORT)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.mark.parametrize("overrides", [[], ATTENTION], ids=["dual", "attention"])
def test_every_window_has_the_vector_of_its_sound(overrides: list[str], manifest: Manifest, tmp_path: Path) -> None:
    retriever = untrained(overrides)
    result = indexed(retriever, manifest, tmp_path, windows=SHORT)
    index = SoundIndex.open(tmp_path)
    assert result["entries"] == len(index.entries) == len(index.vectors) and not (tmp_path / PARTS).exists()
    assert result["recordings"] == 33 and result["encoded"] == result["entries"]
    from training.data.samples import SampleReader

    rows = [0, 50, len(index.entries) - 1]
    samples = drawn(index.entries.take(rows))
    read = SampleReader(manifest.storage, retriever.audio_input.rate, retriever.audio_input.max_s).start(samples)
    text = retriever.encode_texts(["a hum", "hiss"])
    for number, row in enumerate(rows):
        sound = retriever.encode_wave(read(number))
        _, wanted = retriever.model.head.first_stage(text, sound, retriever.model.head.shared())
        np.testing.assert_allclose(index.vectors[row], wanted[0].detach().numpy(), atol=1e-5)
        if overrides:
            kept = tuple(torch.from_numpy(np.array(side[row : row + 1])) for side in index.sides)
            torch.testing.assert_close(retriever.score(text, kept), retriever.score(text, sound), atol=1e-5, rtol=1e-4)
    assert bool(index.sides) == bool(overrides)


def test_an_interrupted_index_continues_and_has_the_same_bytes(
    retriever: Retriever,
    manifest: Manifest,
    whole: Path,
    tmp_path: Path,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.search import building

    update = building.StatusLine.update

    def interrupt(line: Any, done: int, note: str = "") -> None:
        update(line, done, note)
        if done > 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building.StatusLine, "update", interrupt)
        indexed(retriever, manifest, tmp_path, windows=SHORT)
    with pytest.raises(InputError, match="no finished index here"):
        SoundIndex.open(tmp_path)
    result = indexed(retriever, manifest, tmp_path, windows=SHORT)
    assert 0 < result["encoded"] < result["entries"] - 40
    assert contents(tmp_path) == contents(whole)


def test_a_cut_part_of_a_killed_run_is_encoded_again(
    retriever: Retriever, manifest: Manifest, whole: Path, tmp_path: Path, small_parts: None
) -> None:
    parts = json.loads((whole / ABOUT).read_text())["parts"]
    (tmp_path / PARTS).mkdir()
    (tmp_path / PARTS / f"{next(iter(parts))}-{fingerprint(retriever)[:16]}.safetensors").write_bytes(b"cut")
    indexed(retriever, manifest, tmp_path, windows=SHORT)
    assert contents(tmp_path) == contents(whole)


def test_a_part_that_is_gone_is_named_and_encoded_again(
    retriever: Retriever,
    manifest: Manifest,
    whole: Path,
    tmp_path: Path,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.search import building

    listed = building._Stacked.__init__

    def after_it_was_listed(*args: Any) -> None:
        listed(*args)
        next(iter(sorted((tmp_path / PARTS).glob("*development-000000-00001-*")))).unlink()

    with monkeypatch.context() as patch, pytest.raises(InputError) as caught:
        patch.setattr(building._Stacked, "__init__", after_it_was_listed)
        indexed(retriever, manifest, tmp_path, windows=SHORT)
    assert "windows 16 to 31, of the shard clotho-development-000000, and was removed before" in str(caught.value)
    assert indexed(retriever, manifest, tmp_path, windows=SHORT)["encoded"] == 16
    assert contents(tmp_path) == contents(whole)


def grown(root: Path, manifest: Manifest, clips: int) -> Manifest:
    """The build with its first shard, and one more shard."""
    write_sounds(root / "more", clips=clips, held_out=clips, seed=5)
    (root / "both/shards").mkdir(parents=True)
    rows = manifest.table.to_pylist()
    added = Manifest.open(root / "more").table.to_pylist()
    added = [row for row in added if row["split"] == "development"]
    for row in added:
        row |= {"shard": "clotho-development-000001.tar"}
    for name in ("clotho-development-000000.tar", "clotho-evaluation-000000.tar"):
        (root / "both/shards" / name).write_bytes(manifest.storage.read(f"shards/{name}"))
    source = root / "more/shards/clotho-development-000000.tar"
    (root / "both/shards/clotho-development-000001.tar").write_bytes(source.read_bytes())
    for row in added:  # other names, as an appended dataset has
        row |= {"clip_id": row["clip_id"] + "b"}
    commit(root / "both", [*rows, *added])
    return Manifest.open(root / "both")


def test_a_build_that_has_grown_is_indexed_by_encoding_what_is_new(
    retriever: Retriever, manifest: Manifest, tmp_path: Path
) -> None:
    indexed(retriever, manifest, tmp_path / "index", windows=SHORT)
    former = SoundIndex.open(tmp_path / "index")
    vectors = {
        (row["key"], row["start_s"]): v for row, v in zip(former.entries.to_pylist(), former.vectors, strict=True)
    }
    bigger = grown(tmp_path, manifest, 6)
    result = indexed(retriever, bigger, tmp_path / "index", windows=SHORT)
    assert 0 < result["encoded"] < 30 and result["recordings"] == 39
    index = SoundIndex.open(tmp_path / "index")
    assert len(list((tmp_path / "index").glob("vectors-*"))) == 1  # the former files are gone
    for row, vector in zip(index.entries.to_pylist(), index.vectors, strict=True):
        if not row["clip_id"].endswith("b"):
            np.testing.assert_array_equal(vector, vectors[row["key"], row["start_s"]])
    indexed(retriever, bigger, tmp_path / "anew", windows=SHORT)
    assert contents(tmp_path / "anew") == contents(tmp_path / "index")
    assert indexed(retriever, bigger, tmp_path / "index", windows=SHORT)["encoded"] == 0


def test_an_index_of_another_model_or_other_windows_is_refused(manifest: Manifest, whole: Path) -> None:
    before = contents(whole)
    with pytest.raises(InputError, match="index of another model"):
        indexed(untrained([], seed=1), manifest, whole, windows=SHORT)
    with pytest.raises(InputError, match="another length or hop"):
        indexed(untrained([]), manifest, whole, windows=Windows(2.0, 1.0))
    assert contents(whole) == before


def test_windows_longer_than_the_model_hears_are_refused(
    retriever: Retriever, manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="longer than what the model hears"):
        indexed(retriever, manifest, tmp_path, windows=Windows(60.0, 30.0))


def test_a_second_writer_is_refused(retriever: Retriever, manifest: Manifest, tmp_path: Path) -> None:
    from training.search.store import hold

    with hold(tmp_path), pytest.raises(InputError, match="another process writes"):
        indexed(retriever, manifest, tmp_path, windows=SHORT)


def test_a_folder_with_files_of_others_is_refused_and_stays_as_it_is(
    retriever: Retriever, manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("dataset.json", "dog.wav", "parts/letter.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="no index wrote"):
        indexed(retriever, manifest, tmp_path, windows=SHORT)
    with pytest.raises(InputError, match="not a folder"):
        indexed(retriever, manifest, tmp_path / "dog.wav", windows=SHORT)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"dataset.json", "dog.wav", "parts/letter.txt"}


def test_a_note_that_someone_puts_into_an_index_stays(retriever: Retriever, manifest: Manifest, tmp_path: Path) -> None:
    indexed(retriever, manifest, tmp_path, ("clotho/evaluation",), SHORT)
    (tmp_path / "notes.txt").write_text("mine")
    former = set(tmp_path.glob("*.npy"))
    indexed(retriever, manifest, tmp_path, windows=SHORT)
    assert (tmp_path / "notes.txt").read_text() == "mine" and not former & set(tmp_path.glob("*.npy"))


def test_one_split_can_be_indexed_alone(retriever: Retriever, manifest: Manifest, tmp_path: Path) -> None:
    assert indexed(retriever, manifest, tmp_path, ("clotho/evaluation",), SHORT)["recordings"] == 9
    with pytest.raises(InputError, match="no such split"):
        indexed(retriever, manifest, tmp_path, ("clotho/nowhere",), SHORT)


def test_a_fingerprint_changes_with_weights_and_spelling_alone(retriever: Retriever) -> None:
    assert fingerprint(untrained([])) == fingerprint(retriever)
    assert fingerprint(untrained(["data.batch_size=4", "optimizer.lr=0.1"])) == fingerprint(retriever)
    for other in (untrained([], seed=1), untrained(["data.lower=false"]), untrained(["audio.max_s=2.0"])):
        assert fingerprint(other) != fingerprint(retriever)


CHILD = """
import sys
from pathlib import Path
import torch
from sharding.shards.manifest import Manifest
from tests.training.search.indexes import SHORT, indexed, untrained
from training.search import entries
torch.set_num_threads(1)
entries.PART = 16
indexed(untrained([]), Manifest.open(sys.argv[1]), Path(sys.argv[2]), windows=SHORT)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_killed_index_continues_and_has_the_same_bytes(
    after: int, retriever: Retriever, manifest: Manifest, whole: Path, tmp_path: Path, small_parts: None
) -> None:
    command = [sys.executable, "-c", CHILD, manifest.storage.url, str(tmp_path)]
    child = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    while child.poll() is None and len(list(tmp_path.glob(f"{PARTS}/[!.]*.safetensors"))) < after:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    indexed(retriever, manifest, tmp_path, windows=SHORT)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.slow
def test_several_processes_make_the_same_index(
    retriever: Retriever, manifest: Manifest, whole: Path, tmp_path: Path, small_parts: None
) -> None:
    model = exported(retriever, tmp_path / "model")
    runner = LocalRunner(2)
    result = indexed(retriever, manifest, tmp_path / "index", windows=SHORT, model=str(model), runner=runner)
    index, wanted = SoundIndex.open(tmp_path / "index"), SoundIndex.open(whole)
    assert result["encoded"] == result["entries"] and index.entries.equals(wanted.entries)
    np.testing.assert_allclose(index.vectors, wanted.vectors, atol=1e-6)
