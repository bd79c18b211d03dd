"""The files of an index.

index.json          what the index holds and is made of, with its own SHA-256; an index counts once this file is written
entries-H.arrow     ENTRIES, one row for each window; mapped into memory
vectors-H.npy       float32 [entries, d], one vector for each window; mapped into memory
side-N-H.npy        what a head with attention keeps of each window, to score it exactly; mapped into memory
lists-H.faiss       inverted lists of a large index
text-H.onnx, tokenizer-H.json
                    the text tower of a dual encoder (see `text_tower`)
parts/              what a build of the index has encoded so far; removed when it is finished

H is a hash of what the files are made of, so that an index that is updated stays whole until index.json names the new
files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage.failures import naming
from training.engine.sealed import sealed, unsealed
from training.search.entries import ENTRIES
from training.search.nearest import Lists

FORMAT = 2
ABOUT, LOCK, PARTS = "index.json", ".lock", "parts"
_OWN = re.compile(r"(entries|vectors|side-\d+|lists|text|tokenizer)-[0-9a-f]{12}\.(arrow|npy|faiss|onnx|json)")
_PART = re.compile(r".+-[0-9]{5}-[0-9a-f]{16}-[0-9a-f]{16}\.safetensors")
_DRAFT = re.compile(r"\.(.+)\.writing")
_AGAIN = "make the index again with `earshot index`"


@dataclass(frozen=True)
class SoundIndex:
    """A finished index.

    Attributes:
        folder: where it is.
        about: index.json.
        entries: ENTRIES, mapped.
        vectors: ``[entries, d]``, mapped.
        sides: for each tensor of the head's audio side the rows of all entries, mapped; none for a dual encoder.
        lists: inverted lists; None where every vector is compared.
    """

    folder: Path
    about: dict[str, Any]
    entries: pa.Table
    vectors: np.ndarray
    sides: tuple[np.ndarray, ...]
    lists: Lists | None

    @classmethod
    def open(cls, folder: str | Path) -> SoundIndex:
        """Open the index at ``folder``; nothing of it is read until it is needed.

        Raises:
            InputError: there is no finished index, a file is missing or cut, or another version wrote it.
        """
        path = Path(folder)
        about = read_about(path)
        if about is None:
            raise InputError(
                "no finished index here: index.json is missing",
                file=path,
                remedy="make one with `earshot index MODEL --shards OUT --out INDEX`; it continues where it stopped",
            )
        for name, size in about["files"].items():
            found = (path / name).stat().st_size if (path / name).is_file() else None
            if found != size or Path(name).name != name:
                raise InputError(f"index.json says {size} bytes", file=path / name, value=found, remedy=_AGAIN)
        names = {name.partition("-")[0]: name for name in sorted(about["files"])}
        try:
            entries = read_entries(path / names["entries"])
            vectors = _mapped(path / names["vectors"])
            sides = tuple(_mapped(path / name) for name in sorted(about["files"]) if name.startswith("side-"))
            if entries.schema != ENTRIES or vectors.ndim != 2:
                raise ValueError("other columns or shapes")
            if {len(entries), *map(len, sides), about["entries"]} != {len(vectors)}:
                raise ValueError("the files have different numbers of entries")
        except (KeyError, ValueError, OSError, pa.ArrowException) as error:
            raise InputError(f"damaged: {error}", file=path, remedy=_AGAIN) from error
        lists = None
        if about["search"]["kind"] == "lists":
            lists = Lists.open(path / names["lists"], about["search"]["probes"], *vectors.shape)
        return cls(path, about, entries, vectors, sides, lists)


def read_about(folder: Path) -> dict[str, Any] | None:
    """index.json; None if there is none.

    Raises:
        InputError: it is damaged, or another version of Earshot wrote it.
    """
    try:
        about = unsealed((folder / ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"damaged: {error}", file=folder / ABOUT, remedy=_AGAIN) from error
    if about.get("format") != FORMAT:
        remedy = "make it again with `earshot index`, in another folder or after you have removed this one"
        raise InputError(
            f"the index has format {about.get('format')}, and this version of Earshot reads {FORMAT}",
            file=folder,
            remedy=remedy,
        )
    return about


def read_entries(path: Path) -> pa.Table:
    """The ENTRIES of a file, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def write_entries(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write ENTRIES batch by batch."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ENTRIES) as writer:
        for batch in batches:
            writer.write_batch(batch)


def commit(folder: Path, about: dict[str, Any], files: list[str]) -> None:
    """Write index.json over finished files, and remove what no index needs any more."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(files)}
    text = sealed({"format": FORMAT, **about, "files": sizes})
    write_file(folder / ABOUT, lambda path: path.write_text(text, encoding="utf-8"))
    for path in folder.iterdir():
        if path.is_file() and path.name not in files and _is_own(path.name):
            path.unlink()
    for path in (folder / PARTS).glob("*"):
        if _is_own(path.name):
            path.unlink()
    with contextlib.suppress(OSError):
        (folder / PARTS).rmdir()


def _is_own(name: str) -> bool:
    """Whether a file of this name, other than index.json, is one that an index writes, or a draft of one."""
    draft = _DRAFT.fullmatch(name)
    written = draft[1] if draft else name
    return bool(_OWN.fullmatch(written) or _PART.fullmatch(written)) or (draft is not None and written == ABOUT)


def require_own(folder: Path) -> None:
    """Refuse a folder that holds anything but an index, finished or begun.

    Raises:
        InputError: it holds files that no index wrote, or is itself a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError("not a folder", file=folder, remedy="name a new or an empty folder for --out")
    names = [path.name for path in [*folder.iterdir(), *(folder / PARTS).glob("*")]]
    foreign = sorted(name for name in names if name not in (LOCK, PARTS) and not _is_own(name))
    if foreign and not (folder / ABOUT).is_file():
        remedy = "name a new or an empty folder for --out"
        raise InputError("the folder holds files that no index wrote", file=folder, value=foreign[0], remedy=remedy)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file, which appears under its name whole or not at all."""
    draft = path.with_name(f".{path.name}.writing")
    with naming(str(path)):
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        move_file(draft, path)


def move_file(source: Path, path: Path) -> None:
    """Give a finished file another name, durably."""
    source.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the new name is durable
    finally:
        os.close(handle)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Let only this process write to the folder of an index.  The kernel ends the lock with the process.

    Raises:
        InputError: another process writes to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "another process writes to this index",
                file=folder,
                remedy="wait until it has ended, or name another folder",
            ) from None
        yield


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
