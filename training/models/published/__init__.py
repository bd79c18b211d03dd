"""Complete audio-text models that are published, opened as a `Retriever`.

``clap``: a ``ClapModel`` of the transformers library.  ``sentences``: a sentence-transformers model that takes audio.
Both are a local folder, or a name on the Hugging Face hub.  Only safetensors and plain text are read, and no code of
theirs is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sharding.common.errors import InputError
from training.models.downloads import only_here
from training.models.encoders.published import unavailable
from training.models.retriever import Retriever

MODULES, CONFIG = "modules.json", "config.json"
CONVERTED = "0_EarshotEncoder"  # the export in what `earshot convert --to sentence-transformers` wrote
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
READ = ("*.json", "*.txt", "*.model", "*.safetensors")  # all that is downloaded of a model on the hub


def is_published(path: Path) -> bool:
    """Whether ``path`` is the folder of a published model, or no folder but a possible name on the hub."""
    if path.is_dir():
        return (path / MODULES).is_file() or _kind(path) is not None
    return not path.exists() and HUB_NAME.fullmatch(path.as_posix()) is not None


def open_published(path: Path) -> Retriever:
    """The model of a folder, or of a name on the hub, for which `is_published` holds.

    Raises:
        InputError: there is no such model, it is of another kind, its files are damaged, or it would run code.
    """
    from training.models import hub
    from training.models.published import clap, sentences

    folder = path if path.is_dir() else _download(path.as_posix())
    for export in (folder, folder / CONVERTED):
        if (export / CONFIG).is_file() and _kind(export) is None:  # published by `earshot push`, or converted
            return hub.load(export)
    if (folder / MODULES).is_file():
        return sentences.open_sentences(folder)
    if _kind(folder) == "clap":
        return clap.open_clap(folder, path.as_posix())
    raise InputError(
        "a model of this kind does not score texts against sounds",
        file=path,
        value=_kind(folder),
        remedy="name a run, an export, a ClapModel, or a sentence-transformers model that takes audio",
    )


def _kind(folder: Path) -> str | None:
    """The ``model_type`` that a folder's config.json gives; None if there is none, as in an export of Earshot."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None


def _download(name: str) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=list(READ), local_files_only=only_here(name))
        )
    except Exception as error:  # the library raises errors of many kinds
        raise unavailable("model", name, error) from error
