"""A user's own encoder: one file outside of Earshot, which the recipe names as ``FILE.py:CLASS``.

The file has a frozen dataclass ``Settings`` whose first field is ``encoder: str``; its other fields are the keys that
the recipe may set.  Earshot calls ``CLASS(settings)`` for an audio encoder, and ``CLASS(settings, captions)`` with the
training captions for a text encoder.  When the weights come from a checkpoint or an export, the field ``source`` is
"random" and the field ``tokenizer`` is the folder of the saved tokenizer, if ``Settings`` has these fields.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sharding.common.errors import InputError
from sharding.common.storage import Storage


def is_outside(name: object) -> bool:
    """Whether an encoder's name is ``FILE.py:CLASS``."""
    return isinstance(name, str) and ".py:" in name


def file_of(name: str) -> Path:
    """The file of ``FILE.py:CLASS``."""
    return Path(name.rpartition(":")[0])


def located(name: str, recipe: object) -> str:
    """``FILE.py:CLASS`` with the absolute path of the file, which is in the recipe's folder or the current one."""
    file, _, class_name = name.rpartition(":")
    in_recipe_folder = [Path(str(recipe)).parent / file] if recipe is not None else []
    for path in (*in_recipe_folder, Path(file)):
        if path.is_file():
            return f"{path.resolve()}:{class_name}"
    raise InputError(
        "no such file of an encoder",
        file=file,
        value=name,
        remedy="name it relative to the recipe's folder or to the current folder",
    )


def contents(name: str) -> str:
    """The class and a digest of the file of ``FILE.py:CLASS``: equal for equal code, wherever the file is."""
    return f"{name.rpartition(':')[2]} of a file {_digest(file_of(name))}"


def carried(settings: Any, part: str, folder: Path) -> Any:
    """Copy the file of a user's own encoder into ``folder``, and return settings that name the copy.

    The settings of Earshot's own encoders are returned unchanged.
    """
    if not is_outside(settings.encoder):
        return settings
    file = f"{part}_encoder.py"
    Storage(folder).write(file, file_of(settings.encoder).read_bytes())
    return replace(settings, encoder=f"{file}:{settings.encoder.rpartition(':')[2]}")


class OutsideModule:
    """The ``Settings`` and ``build`` of a user's own encoder, as the modules of Earshot's own encoders have them.

    Args:
        name: ``FILE.py:CLASS``.
        kind: the class must be a subclass of it: ``AudioEncoder`` or ``TextEncoder``.
    """

    def __init__(self, name: str, kind: type) -> None:
        self.kind, self.file, self.name = kind, file_of(name), name.rpartition(":")[2]
        module = _import(self.file)
        self.encoder: Any = getattr(module, self.name, None)
        if not (isinstance(self.encoder, type) and issubclass(self.encoder, kind)):
            found = [
                key
                for key, value in vars(module).items()
                if isinstance(value, type) and value.__module__ == module.__name__
            ]
            raise InputError(
                f"the file has no {kind.__name__} of that name",
                file=self.file,
                value=self.name,
                remedy="its classes are " + ", ".join(found) if found else None,
            )
        self.Settings: Any = getattr(module, "Settings", None)
        if not is_dataclass(self.Settings) or [each.name for each in fields(self.Settings)][:1] != ["encoder"]:
            raise InputError(
                "the file has no dataclass Settings whose first field is `encoder: str`",
                file=self.file,
                remedy="docs/METHODS.md has an example",
            )

    def build(self, settings: Any, *captions: Iterable[str]) -> Any:
        """The encoder; ``InputError`` if it lacks an attribute, or if its samples depend on each other."""
        try:
            encoder = self.encoder(settings, *captions)
        except TypeError as error:
            raise InputError(f"{self.name} cannot be made: {error}", file=self.file) from error
        encoder.train()
        for is_wrong, problem, remedy in (
            (
                _drops_for_the_batch,
                f"the dropout of {self.name} is not drawn for each sample, so ranks would drop other numbers",
                "use nn.Dropout and F.scaled_dot_product_attention, or a rate of 0",
            ),
            (
                _mixes_samples,
                f"{self.name} would normalise by the statistics of a rank or a chunk, and not of the whole batch",
                "keep it in evaluation in train(), or use a layer norm or a group norm",
            ),
        ):
            found = next((name for name, module in encoder.named_modules() if is_wrong(module)), None)
            if found is not None:
                raise InputError(problem, file=self.file, value=found, remedy=remedy)
        wanted = [key for parent in self.kind.__mro__ for key in vars(parent).get("__annotations__", {})]
        missing = sorted(key for key in wanted if not hasattr(encoder, key))
        if missing:
            raise InputError(f"{self.name} does not define {', '.join(missing)}", file=self.file)
        return encoder


def _drops_for_the_batch(module: nn.Module) -> bool:
    """Whether a module has dropout that ``training.engine.dropout`` cannot replace by dropout of each sample."""
    if isinstance(module, nn.modules.dropout._DropoutNd) and not isinstance(module, nn.Dropout):
        return module.p > 0
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0


def _mixes_samples(module: nn.Module) -> bool:
    """Whether the output of a module for one sample depends on the other samples of the batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


def _digest(file: Path) -> str:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise InputError("no such file of an encoder", file=file) from error


def _import(file: Path) -> ModuleType:
    """The module of a file, which runs once for each content of the file."""
    name = f"earshot_encoder_{file.stem}_{_digest(file)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"the encoder's file cannot be run: {type(error).__name__}: {error}", file=file) from error
    return module
