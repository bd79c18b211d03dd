"""A user's own encoder: one file outside of Earshot, which the recipe names as ``FILE.py:CLASS``.

The file has a frozen dataclass ``Settings`` whose first field is ``encoder: str``; its other fields are the keys that
the recipe may give.  An audio encoder is made by ``CLASS(settings)``, a text encoder by ``CLASS(settings, captions)``
with the training captions.  Two fields have a meaning when weights come from a checkpoint or an export: ``source`` is
then "random", and ``tokenizer`` is the folder of the tokenizer that was saved.
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
    """``FILE.py:CLASS`` with the whole path of the file, which is looked for beside the recipe, then here."""
    file, _, class_name = name.rpartition(":")
    beside = [Path(str(recipe)).parent / file] if recipe is not None else []
    for path in (*beside, Path(file)):
        if path.is_file():
            return f"{path.resolve()}:{class_name}"
    raise InputError(
        "no such file of an encoder",
        file=file,
        value=name,
        remedy="name it as seen from the recipe's folder or from here",
    )


def contents(name: str) -> str:
    """What ``FILE.py:CLASS`` is, wherever the file lies: the class, and a digest of the file."""
    return f"{name.rpartition(':')[2]} of a file {_digest(file_of(name))}"


def carried(settings: Any, part: str, folder: Path) -> Any:
    """An encoder's settings that name a copy of its file in ``folder``; those of Earshot's own as they are."""
    if not is_outside(settings.encoder):
        return settings
    file = f"{part}_encoder.py"
    Storage(folder).write(file, file_of(settings.encoder).read_bytes())  # whole or not at all
    return replace(settings, encoder=f"{file}:{settings.encoder.rpartition(':')[2]}")


class OutsideModule:
    """What stands for a module of Earshot's own: ``Settings`` and ``build``.

    Args:
        name: ``FILE.py:CLASS``.
        kind: what the class must be: ``AudioEncoder`` or ``TextEncoder``.
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
        """The encoder; ``InputError`` where it lacks what an encoder must have."""
        try:
            encoder = self.encoder(settings, *captions)
        except TypeError as error:
            raise InputError(f"{self.name} cannot be made: {error}", file=self.file) from error
        encoder.train()
        for depends, what, remedy in (
            (
                _draws_alone,
                f"what {self.name} drops would belong to no sample: ranks and chunks would drop other numbers",
                "use nn.Dropout and F.scaled_dot_product_attention, or a rate of 0",
            ),
            (
                _mixes_samples,
                f"what {self.name} normalises by would be those samples alone that a rank or a chunk has",
                "keep it in evaluation in train(), or use a layer norm or a group norm",
            ),
        ):
            found = next((name for name, module in encoder.named_modules() if depends(module)), None)
            if found is not None:
                raise InputError(what, file=self.file, value=found, remedy=remedy)
        wanted = [key for parent in self.kind.__mro__ for key in vars(parent).get("__annotations__", {})]
        missing = sorted(key for key in wanted if not hasattr(encoder, key))
        if missing:
            raise InputError(f"{self.name} does not say its {', '.join(missing)}", file=self.file)
        return encoder


def _draws_alone(module: nn.Module) -> bool:
    """Whether a module drops numbers past ``training.engine.dropout``, which knows two functions of torch."""
    if isinstance(module, nn.modules.dropout._DropoutNd) and not isinstance(module, nn.Dropout):
        return module.p > 0
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0


def _mixes_samples(module: nn.Module) -> bool:
    """Whether what comes out of a module for one sample depends on the others beside it."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


def _digest(file: Path) -> str:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise InputError("no such file of an encoder", file=file) from error


def _import(file: Path) -> ModuleType:
    """The module of a file, run once for each state of the file."""
    name = f"earshot_encoder_{file.stem}_{_digest(file)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"the encoder's file cannot be run: {type(error).__name__}: {error}", file=file) from error
    return module
