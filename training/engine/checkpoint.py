"""Checkpoints that do not depend on the number of ranks: tensors by parameter name, and one small JSON.

A checkpoint is the folder ``step-000000123`` with

- ``model.safetensors``: every trained parameter (float32) and every buffer by its name in the model,
- ``optimizer.safetensors``: ``<moment>/<parameter name>``, e.g. ``exp_avg/head.audio.weight``,
- ``state.json``: step, epoch, the name of the next batch, a digest of the run's recipe, figures, the size and SHA-256
  of the other two, and its own; written last.

Parameters that are not trained are the same in every checkpoint of a run.  They are saved once, as
``frozen.safetensors`` in the run's folder, and every ``state.json`` has the size and SHA-256 of that file.

A checkpoint is written into a hidden folder, flushed to disk and renamed, so it is there whole or not at all.  Nothing
in it depends on the number of ranks, the ZeRO stage, or how parameters are grouped.  Randomness needs no
state: everything random is a function of the recipe's seed, the step and the sample.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sharding.common.errors import InputError
from sharding.common.storage import apply_umask
from training.config.sections import CheckpointSettings
from training.engine.sealed import sealed, unsealed

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FROZEN = "frozen.safetensors"  # in the run's folder
_FOLDERS = "step-" + 9 * "[0-9]"  # what is named otherwise is somebody's own, and neither read nor removed
GO_ON = "remove this checkpoint's folder; training resumes from the one before it"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """How many steps were taken before it was written: the next step's number."""
        return int(self.state["step"])

    def model(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, with the run's frozen parameters."""
        frozen = read_tensors(_frozen_file(self.folder)) if self.state.get("frozen") else {}
        return frozen | read_tensors(self.folder / MODEL)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Moment name to parameter name to tensor; no moment where the optimizer has not moved yet."""
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in read_tensors(self.folder / OPTIMIZER).items():
            moment, _, parameter = key.partition("/")
            moments.setdefault(moment, {})[parameter] = tensor
        return moments


def save(
    checkpoints: Path,
    step: int,
    model: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
) -> Path:
    """Write a checkpoint below the folder ``checkpoints``, atomically; one rank does it.

    Raises ``InputError`` if it cannot be written; what was there before stays.
    """
    target = checkpoints / f"step-{step:09d}"
    folder = checkpoints / f".writing-{target.name}"
    optimizer = {f"{moment}/{name}": tensor for moment, named in moments.items() for name, tensor in named.items()}
    files = {}
    with writing(target):
        checkpoints.mkdir(parents=True, exist_ok=True)
        for leftover in checkpoints.glob(".writing-*"):
            shutil.rmtree(leftover)
        folder.mkdir()
        for name, tensors in ((MODEL, model), (OPTIMIZER, optimizer)):
            path = folder / name
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
            apply_umask(path)
            _flush(path)
            files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        (folder / STATE).write_text(sealed({"format": FORMAT, "step": step, **state, "files": files}))
        _flush(folder / STATE)
        _flush(folder)
        for later in steps(checkpoints):
            if later >= target:  # it is damaged: otherwise the run would have continued from it
                _remove(later)
        folder.rename(target)
        _flush(checkpoints)
    return target


def load(folder: Path) -> Checkpoint:
    """Open a checkpoint and compare its files with their checksums; ``InputError`` if they differ."""
    if not (folder / STATE).is_file():
        raise InputError(
            "not a checkpoint: it has no state.json",
            file=folder,
            remedy="name a folder such as RUN/checkpoints/step-000000123",
        )
    state = _unsealed(folder / STATE)
    for name, expected in state["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            raise InputError(
                "the checkpoint is damaged: size or checksum differs from state.json", file=path, remedy=GO_ON
            )
    frozen = state.get("frozen")
    if frozen and _described(_frozen_file(folder)) != frozen:
        raise InputError(
            "the run's frozen parameters are missing or damaged: size or checksum differs from state.json",
            file=_frozen_file(folder),
            remedy="keep checkpoints inside their run, or put the file back",
        )
    return Checkpoint(folder, state)


def check_recipe_digest(checkpoint: Checkpoint, digest: str, file: Path) -> None:
    """``InputError`` that names ``file`` if a checkpoint was written under another recipe than that of ``digest``.

    Checkpoints of former versions have no digest, and pass.
    """
    if checkpoint.state.get("recipe_digest") not in (None, digest):
        raise InputError(
            "the recipe was changed after this checkpoint was written",
            file=file,
            value=checkpoint.folder.name,
            remedy="put the file back as the run wrote it; to train with another recipe, name another --run",
        )


def save_frozen(run: Path, values: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Save the parameters that a run does not train, once; one rank does it.

    Returns:
        the size and SHA-256 that each checkpoint's ``state.json`` keeps as ``frozen``; None if there are none.
    """
    if not values:
        return None
    target = run / FROZEN
    with writing(target):
        draft = target.with_name(f".{FROZEN}.writing")
        save_file({key: tensor.contiguous() for key, tensor in values.items()}, draft)
        _flush(draft)
        draft.rename(target)
        _flush(run)
    return _described(target)


def _frozen_file(checkpoint: Path) -> Path:
    return checkpoint.resolve().parent.parent / FROZEN


def _described(path: Path) -> dict[str, Any] | None:
    """The size and SHA-256 of a file; None if there is none."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)} if path.is_file() else None


def _unsealed(path: Path) -> dict[str, Any]:
    damaged = InputError("the checkpoint is damaged: state.json is not as it was written", file=path, remedy=GO_ON)
    try:
        state = unsealed(path.read_bytes().decode())
    except ValueError as error:
        raise damaged from error
    if "format" not in state:
        raise damaged
    if state["format"] != FORMAT:
        raise InputError(
            f"the checkpoint has format {state['format']}, and this version of Earshot reads {FORMAT}", file=path.parent
        )
    return state


def steps(checkpoints: Path) -> list[Path]:
    """All checkpoints' folders, oldest first."""
    return sorted(path for path in checkpoints.glob(_FOLDERS) if path.is_dir())


def is_step(name: str) -> bool:
    """Whether a folder of that name is a checkpoint."""
    return fnmatch.fnmatchcase(name, _FOLDERS)


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that passes its checks, and what was wrong with newer ones."""
    complaints: list[str] = []
    for folder in reversed(steps(checkpoints)):
        try:
            return load(folder), complaints
        except InputError as error:
            complaints.append(str(error))
    return None, complaints


def prune(checkpoints: Path, settings: CheckpointSettings, metric: str) -> list[Path]:
    """Remove what the rule does not keep, and return what was removed.

    Kept: the last ``keep_last``, and the ``keep_best`` with the highest ``metric`` among those that have it.
    """
    folders = steps(checkpoints)
    scores = {folder.name: score for score, folder in _scored(checkpoints, metric)}
    keep = to_keep([folder.name for folder in folders], scores, settings)
    gone = [folder for folder in folders if folder.name not in keep]
    with writing(checkpoints):
        for folder in gone:
            _remove(folder)
    return gone


def to_keep(names: Sequence[str], scores: Mapping[str, float], settings: CheckpointSettings) -> set[str]:
    """Names of the checkpoints that the rule keeps.

    Args:
        names: the names of all checkpoints, oldest first.
        scores: the metric of those that have it.
        settings: the rule.
    """
    best_first = sorted(scores, key=lambda name: (scores[name], name), reverse=True)
    return {*names[-settings.keep_last :], *best_first[: settings.keep_best]}


def best(checkpoints: Path, metric: str) -> Path | None:
    """The whole checkpoint with the highest ``metric``, the newest of several; None if none has it."""
    for _, folder in _scored(checkpoints, metric):
        with contextlib.suppress(InputError):  # a damaged one is no candidate
            return load(folder).folder
    return None


def _scored(checkpoints: Path, metric: str) -> list[tuple[float, Path]]:
    """Checkpoints that have the metric, best first; the newest first of equal ones."""
    scored = []
    for folder in steps(checkpoints):
        with contextlib.suppress(OSError, InputError):
            value = _unsealed(folder / STATE).get("validation", {}).get(metric)
            if value is not None:
                scored.append((float(value), folder))
    return sorted(scored, key=lambda pair: (pair[0], pair[1].name), reverse=True)


def restore(model: nn.Module, loss: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's tensors into a model and a loss that were built from the same recipe."""
    restore_named(
        dict(model.state_dict()) | {f"loss.{name}": value for name, value in loss.state_dict().items()}, values
    )


def restore_named(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's tensors into those of the same names.

    Raises:
        InputError: one is missing, or has another shape.
    """
    tied = _tied(own)
    for name, value in own.items():
        source = name if name in values else tied.get(name, name)
        if source not in values:
            raise InputError("the checkpoint lacks a parameter of the recipe's model", value=name)
        if values[source].shape != value.shape:
            shapes = f"{tuple(values[source].shape)}, the recipe's model has {tuple(value.shape)}"
            raise InputError(f"a parameter of the checkpoint has shape {shapes}", value=name)
        with torch.no_grad():
            value.copy_(values[source])


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that share memory, to the first of them: it alone is saved."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {name: first.setdefault((value.data_ptr(), value.shape), name) for name, value in state.items()}


def _remove(folder: Path) -> None:
    """Remove a checkpoint: it is renamed first, so that no half of it is ever seen under its name."""
    doomed = folder.with_name(f".writing-{folder.name}.gone")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def find(path: Path) -> Path:
    """The checkpoint that ``path`` means: itself, or of a run or its checkpoints the newest valid one."""
    if (path / STATE).is_file():
        return path
    for folder in (path / "checkpoints", path):
        checkpoint, _ = newest(folder)
        if checkpoint is not None:
            return checkpoint.folder
    raise InputError(
        "no checkpoint here" if path.exists() else "no such folder",
        file=path,
        remedy="name a run's folder, RUN/checkpoints/step-..., an export, or a published model",
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn failures to write, also those that safetensors raises, into an ``InputError`` that names the file."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        remedy = "make room there and run the same command again; training goes on from its last checkpoint"
        raise InputError(f"cannot be written: {error}", file=path, remedy=remedy) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; ``InputError`` if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
