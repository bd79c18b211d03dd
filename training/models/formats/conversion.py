"""From an export to a folder that another library loads: written, proved, and only then put under its name."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.engine.checkpoint import writing
from training.engine.remote import model_folder
from training.models import hub
from training.models.formats import EXTRA, FORMATS
from training.models.formats.proof import CheckClips, Proof


def convert(model: str | Path, name: str, out: Path, clips: CheckClips, trust_code: bool = False) -> Proof:
    """Convert an export, and prove on recordings that the result computes the same.

    Args:
        model: an export, or the folder of a run that has one.
        name: a format of `FORMATS`.
        out: the new folder; it must not exist.
        clips: what the two are compared on.
        trust_code: whether to run the Python files of encoders that the export brings along.

    Returns:
        what was compared, and the largest differences.

    Raises:
        InputError: the format cannot hold the model, a library is not installed, or the vectors differ.  Then nothing
            is written.
    """
    if name not in FORMATS:
        raise InputError("there is no such format", value=name, remedy="one of " + ", ".join(FORMATS))
    if out.exists():
        raise InputError("the folder exists already", file=out, remedy="name a new folder")
    module: Any = importlib.import_module(FORMATS[name])
    require_libraries(module.LIBRARIES)
    with model_folder(model) as folder:
        return _convert(hub.find_export(folder), module, out, clips, trust_code)


def _convert(export: Path, module: Any, out: Path, clips: CheckClips, trust_code: bool) -> Proof:
    retriever = hub.load(export, trust_code)
    draft = out.with_name(f".{out.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with writing(out):
            draft.mkdir(parents=True)
            module.write(retriever, hub.origin_of(export), draft)
            proof: Proof = module.prove(retriever, draft, clips)
            proof.require()
            (draft / hub.CARD).write_text(_card(export, module.usage(retriever), proof), encoding="utf-8")
            draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return proof


def require_libraries(names: tuple[str, ...]) -> None:
    """``InputError`` if a library is not installed, with the extra that installs it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"pip install 'earshot[{EXTRA}]'"
        raise InputError("this format needs a library that is not installed", value=", ".join(missing), remedy=remedy)


def _card(export: Path, usage: str, proof: Proof) -> str:
    """The card of the export, with the use of the other library in place of Earshot's."""
    card = export / hub.CARD
    written = card.read_text(encoding="utf-8") if card.is_file() else "# Audio-text retrieval model\n"
    lines = [f"- {name}: {largest:.1e}" for name, largest in proof.differences.items()]
    lines += [f"- {remark}" for remark in proof.remarks]
    found = "\n".join(lines)
    return f"""{written.rstrip()}

## This folder

{usage.strip()}

It was compared with the export of Earshot on {proof.clips} recordings and {proof.texts} texts. The largest differences:

{found}
"""
