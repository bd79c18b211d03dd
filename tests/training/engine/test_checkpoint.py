from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharding.common.errors import InputError
from training.config.sections import CheckpointSettings
from training.engine import checkpoint
from training.engine.sealed import sealed, unsealed

METRIC = "text_to_audio/mAP@10"


def save(folder: Path, step: int, value: float | None = None) -> Path:
    model = {"head.weight": torch.full((3, 2), float(step)), "head.bias": torch.arange(3.0)}
    moments = {"exp_avg": {"head.weight": torch.ones(3, 2)}, "exp_avg_sq": {"head.weight": torch.zeros(3, 2)}}
    state = {"epoch": 0, "updates": step, "validation": {} if value is None else {METRIC: value}}
    return checkpoint.save(folder, step, model, moments, state)


def test_a_checkpoint_holds_everything_by_name(tmp_path: Path) -> None:
    found = checkpoint.load(save(tmp_path, 7))
    assert found.step == 7
    assert torch.equal(found.model()["head.weight"], torch.full((3, 2), 7.0))
    assert set(found.moments()) == {"exp_avg", "exp_avg_sq"}
    assert torch.equal(found.moments()["exp_avg"]["head.weight"], torch.ones(3, 2))


def test_its_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        folder = save(tmp_path, 7)
    finally:
        os.umask(former)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.sampled_from([0, 1, 2]))
def test_any_flipped_bit_is_noticed_and_the_one_before_is_taken(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, which: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder, 1)
    file = save(folder, 2) / (checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE)[which]
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    file.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(file.parent)
    found, complaints = checkpoint.newest(folder)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and file.name in complaints[0]


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    save(tmp_path, 1)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, former[1]))  # bytes in a file, beyond which writing fails
    try:
        with pytest.raises(InputError, match=r"(?s)step-000000002: cannot be written.*make room"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert checkpoint.find(tmp_path).name == "step-000000001"
    assert checkpoint.load(save(tmp_path, 2)).step == 2


def test_a_cut_or_missing_file_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / checkpoint.OPTIMIZER).unlink()
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)
    (folder / checkpoint.STATE).write_text("{")
    with pytest.raises(InputError, match=r"damaged: state\.json"):
        checkpoint.load(folder)


def test_what_a_killed_process_left_is_neither_seen_nor_in_the_way(tmp_path: Path) -> None:
    save(tmp_path, 1)
    half = tmp_path / ".writing-step-000000002"
    half.mkdir()
    (half / checkpoint.MODEL).write_bytes(b"half")
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and (found.step, complaints) == (1, [])
    assert checkpoint.load(save(tmp_path, 2)).step == 2
    assert not half.exists()


def test_the_last_checkpoints_and_the_best_ones_are_kept(tmp_path: Path) -> None:
    for step, value in enumerate([0.1, 0.5, 0.3, 0.5, 0.2, None], 1):
        save(tmp_path, step, value)
    checkpoint.prune(tmp_path, CheckpointSettings(keep_last=2, keep_best=1), METRIC)
    assert [int(path.name[-3:]) for path in checkpoint.steps(tmp_path)] == [4, 5, 6]
    assert checkpoint.best(tmp_path, METRIC) == tmp_path / "step-000000004"


def test_a_damaged_checkpoint_pushes_no_good_one_out(tmp_path: Path) -> None:
    """A run that goes on from an older one takes the place of what came after that."""
    save(tmp_path, 5)
    damaged = save(tmp_path, 10)
    (damaged / checkpoint.MODEL).write_bytes(b"no tensors")
    save(tmp_path, 6)
    checkpoint.prune(tmp_path, CheckpointSettings(keep_last=1, keep_best=0), METRIC)
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and (found.step, complaints) == (6, [])


def test_a_damaged_checkpoint_is_never_the_best(tmp_path: Path) -> None:
    good, torn = save(tmp_path, 1, 0.1), save(tmp_path, 2, 0.3)
    (torn / checkpoint.MODEL).write_bytes(b"no tensors")
    forged = save(tmp_path, 3, 0.2) / checkpoint.STATE
    forged.write_text(forged.read_text().replace("0.2", "0.9"))
    assert checkpoint.best(tmp_path, METRIC) == good
    checkpoint.prune(tmp_path, CheckpointSettings(keep_last=1, keep_best=1), METRIC)
    assert torn in checkpoint.steps(
        tmp_path
    )  # its figure is what counts here: tensors are looked at when they are used


def test_find_takes_a_run_its_checkpoints_or_one_of_them(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    newest = save(tmp_path / "checkpoints", 2)
    assert [checkpoint.find(p) for p in (tmp_path, tmp_path / "checkpoints", newest)] == [newest] * 3
    with pytest.raises(InputError, match="no such folder"):
        checkpoint.find(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint here"):
        checkpoint.find(tmp_path / "empty")


def test_restoring_refuses_another_model(tmp_path: Path) -> None:
    model, loss = nn.Linear(2, 3), nn.Identity()
    checkpoint.restore(model, loss, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)})
    assert torch.equal(model.weight.detach(), torch.ones(3, 2))
    with pytest.raises(InputError, match="lacks a parameter") as caught:
        checkpoint.restore(model, loss, {"weight": torch.ones(3, 2)})
    assert caught.value.value == "bias"
    with pytest.raises(InputError, match="has shape"):
        checkpoint.restore(model, loss, {"weight": torch.ones(2, 3), "bias": torch.zeros(3)})


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    state = unsealed((folder / checkpoint.STATE).read_text()) | {"format": 99}
    (folder / checkpoint.STATE).write_text(sealed(state))
    with pytest.raises(InputError, match="format 99"):
        checkpoint.load(folder)


def test_what_somebody_put_beside_checkpoints_is_not_theirs(tmp_path: Path) -> None:
    save(tmp_path, 1)
    mine = [tmp_path / "step-000000001.good", tmp_path / "step-mine"]
    for folder in mine:
        shutil.copytree(tmp_path / "step-000000001", folder)
    for step in (2, 3, 4):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, CheckpointSettings(keep_last=1, keep_best=0), METRIC)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000000004"]
    assert all(folder.is_dir() for folder in mine)
