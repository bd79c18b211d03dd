"""Checks of models that come from elsewhere: their files, the code that they name, and the memory that they ask for."""

from __future__ import annotations

import contextlib
import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharding.common.errors import InputError
from training.models.encoders.outside import file_of, is_outside

PARTS = ("audio", "text")
SPARE_BYTES = 2**29  # that a model may allocate beyond a multiple of its files, such as buffers
COPIES = 8  # of the files' bytes: half precision becomes float32, and initialising weights takes temporary tensors


def describe_files(folder: Path, left_out: frozenset[str]) -> dict[str, dict[str, Any]]:
    """The size and SHA-256 of every file below ``folder`` by its relative path, except the top-level ``left_out``."""
    return {
        name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for name, path in sorted(_files(folder).items())
        if name not in left_out
    }


def check_files(folder: Path, listed: Any, loaded: tuple[str, ...]) -> int:
    """Compare the files of a folder with their list, and return how many bytes are listed.

    Args:
        folder: the folder.
        listed: size and SHA-256 by relative path, from `describe_files`.
        loaded: names of files and folders in ``folder`` that are loaded; nothing in them may be missing in the list.

    Raises:
        InputError: a file is missing, differs from the list, or is not in the list.
    """
    remedy = "copy the folder again from its source"
    if not isinstance(listed, dict):
        raise InputError("config.json does not list the files", file=folder, remedy=remedy)
    found = _files(folder)
    for name in found:
        if name.split("/")[0] in loaded and name not in listed:
            raise InputError("a file is not in the list of config.json", file=folder / name, remedy="remove the file")
    total = 0
    for name, expected in listed.items():
        if name not in found:
            raise InputError("a file that config.json lists is missing", file=folder / name, remedy=remedy)
        size, digest = (expected.get(key) if isinstance(expected, dict) else None for key in ("bytes", "sha256"))
        if found[name].stat().st_size != size or _sha256(found[name]) != digest:
            raise InputError("size or SHA-256 differs from config.json", file=folder / name, remedy=remedy)
        total += size
    return total


def permit_code(tree: Any, folder: Path, trust_code: bool) -> Any:
    """A recipe from inside ``folder``, in which the Python files of encoders have absolute paths.

    Args:
        tree: the recipe's plain tree.
        folder: the only folder from which code may run.
        trust_code: whether code may run at all; the SHA-256 of each file is printed then.

    Raises:
        InputError: the recipe names code, and it is not trusted or lies outside of ``folder``.
    """
    if not isinstance(tree, dict):
        return tree
    permitted = dict(tree)
    for part in PARTS:
        section = tree.get(part)
        name = section.get("encoder") if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(name, str) or not is_outside(name):
            continue
        path = (folder / file_of(name)).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            what = f"the {part} encoder is Python code that is not inside of the model's folder, and it is not run"
            raise InputError(what, file=folder, value=name)
        digest = _sha256(path)
        if not trust_code:
            raise InputError(
                f"the {part} encoder is Python code, which could do anything with your rights",
                file=path,
                value=f"SHA-256 {digest}",
                remedy="read the file; if you trust it, say --trust-code, or trust_code=True in Python",
            )
        print(f"running the code of the {part} encoder: {path} (SHA-256 {digest})", file=sys.stderr)
        permitted[part] = section | {"encoder": f"{path}:{name.rpartition(':')[2]}"}
    return permitted


@contextlib.contextmanager
def refusing_malformed(folder: Path) -> Iterator[None]:
    """Turn every error of a model that cannot be made into an ``InputError``.

    The files have their checksums, so a configuration that fails was forged, or is of another version.  Libraries raise
    errors of many kinds for it; safetensors and tokenizers can even raise a panic of Rust.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"no model can be made of it: {type(error).__name__}: {reason}"[:500],
            file=folder,
            remedy="copy the folder again from its source, or use the version of Earshot that wrote it",
        ) from error


class AllocationBudget(TorchDispatchMode):
    """Refuses a model that allocates far more memory than its files hold.

    A configuration of a few bytes can ask for layers of any size and number.

    Args:
        files_bytes: how many bytes the files of the model have.
    """

    def __init__(self, files_bytes: int) -> None:
        super().__init__()
        self.left = COPIES * files_bytes + SPARE_BYTES

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _FACTORIES and _device(kwargs) != "meta":
            self._take(math.prod(args[0]) * 4)  # before it is allocated
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.device.type != "meta" and not _is_view(func):
            self._take(result.numel() * result.element_size())
        return result

    def _take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise InputError(
                "config.json describes a model that is far larger than the weights",
                remedy="copy the folder again from its source",
            )


_FACTORIES = {f"aten::{name}" for name in ("empty", "zeros", "ones", "full", "rand", "randn")}


def _device(kwargs: Mapping[str, Any]) -> str:
    return torch.device(kwargs.get("device") or "cpu").type


def _is_view(func: Any) -> bool:
    """Whether a function returns memory of its arguments, as views and in-place functions do."""
    return any(value.alias_info is not None for value in func._schema.returns)


def check_weights(values: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], file: Path) -> None:
    """``InputError`` if a file of weights has other names, types or shapes than the model, or numbers not finite."""
    unknown = sorted(set(values) - set(own))
    if unknown:
        raise InputError("the weights have a tensor that the model lacks", file=file, value=unknown[0])
    for name, value in values.items():
        if (value.shape, value.dtype) != (own[name].shape, own[name].dtype):
            found, wanted = (f"{tuple(each.shape)} {each.dtype}" for each in (value, own[name]))
            raise InputError(f"a tensor of the weights is {found}, of the model {wanted}", file=file, value=name)
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError("the weights have numbers that are not finite", file=file, value=name)


def _files(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its path in it, with slashes."""
    try:
        return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=folder) from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
