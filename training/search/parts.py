"""Encodes parts of an index: in this process, in several of this machine, or on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from training.data.sampling.mixture import select_rows
from training.evaluation.encoding import SideEncoder, side_encoder
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.search.entries import Part, Windows
from training.search.reading import encode_parts
from training.search.store import PARTS, read_entries, write_file
from training.search.vectors import first_stage, is_exact

_PROBE = ["a sound"]  # a caption whose side stands for any other: a first stage looks at each side alone


@dataclass(frozen=True)
class Source:
    """What the entries of an index are made from.

    Attributes:
        model: an export, a checkpoint, a run or a published model, as `training.models.hub.open_model` takes it.
        trust_code: whether to run the Python files of encoders that come with the model.
        shards: the build.
        splits: dataset/split or dataset each; none: the whole build.
        windows: how recordings are cut.
    """

    model: str
    trust_code: bool
    shards: str
    splits: tuple[str, ...]
    windows: Windows

    def select(self, manifest: Any) -> pa.Table:
        """The rows of the manifest that are indexed."""
        if not self.splits:
            return manifest.table
        chosen = np.zeros(manifest.table.num_rows, bool)
        for name in self.splits:
            chosen |= select_rows(manifest.table, name)
        return manifest.table.filter(pa.array(chosen))


@dataclass
class PartEncoder:
    """Encodes parts, and writes each of them as a file; a worker process loads the model once.

    Attributes:
        source: what is encoded.
        folder: the folder of the index, which every worker sees.
        key: a hash of the model, which is part of the files' names.
        opened: the model, the build and the entries, where this process has them already.
        report: called with the number of entries so far of the parts that are being encoded.
    """

    source: Source
    folder: Path
    key: str
    opened: tuple[Retriever, Any, pa.Table] | None = None
    report: Callable[[int], None] | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs of a cluster a worker takes, where it has any."""
        return 1

    def __getstate__(self) -> dict[str, Any]:
        """The state that is sent to a worker, without the model, which is loaded there."""
        return self.__dict__ | {"opened": None, "report": None}

    def __call__(self, parts: Sequence[Part]) -> int:
        """Encode the parts that have no file yet; returns how many entries all of them have."""
        if self.opened is None:
            from training.models.hub import open_model

            if not self.listed.is_file():
                remedy = "name a folder for --out that every node sees"
                raise InputError("a worker does not see the folder of the index", file=self.folder, remedy=remedy)
            model = open_model(self.source.model, self.source.trust_code)
            self.opened = model, Manifest.open(self.source.shards), read_entries(self.listed)
        retriever, manifest, entries = self.opened
        missing = [part for part in parts if part_shapes(self.file(part), len(part)) is None]
        done = sum(map(len, parts)) - sum(map(len, missing))
        if missing:
            encoder = side_encoder(retriever.model, retriever.recipe.data)
            for part, tensors in _encoded(encoder, retriever, manifest, entries, missing):
                write_file(self.file(part), lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
                done += len(part)
                if self.report is not None:
                    self.report(done)
        return done

    @property
    def listed(self) -> Path:
        """The file of the entries, until the index is finished."""
        return self.folder / PARTS / f"entries-{self.key[:12]}.arrow"

    def file(self, part: Part) -> Path:
        """The file of a part."""
        return self.folder / PARTS / f"{part.name}-{self.key[:16]}.safetensors"


def part_shapes(path: Path, count: int) -> dict[str, tuple[int, ...]] | None:
    """The shapes of the tensors of a part that is finished, without reading them; None if it is not."""
    try:
        with safe_open(path, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    return shapes if "vectors" in shapes and all(shape[0] == count for shape in shapes.values()) else None


def read_part(path: Path, part: Part) -> dict[str, np.ndarray]:
    """The tensors of a finished part.

    Raises:
        InputError: its file is not there any more, or was cut.
    """
    if part_shapes(path, len(part)) is None:
        what = "was cut" if path.exists() else "was removed"
        raise InputError(
            f"this file held the vectors of the windows {part.begin} to {part.end - 1}, of the shard {part.shard}, "
            f"and {what} before the index was finished",
            file=path,
            remedy="let nothing else change the folder of the index, and run the same command again: it encodes "
            "these windows again, and keeps the others",
        )
    return dict(load_file(path))


def _encoded(
    encoder: SideEncoder, retriever: Retriever, manifest: Any, entries: pa.Table, parts: list[Part]
) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
    """The tensors of each part in turn."""
    text = retriever.encode_texts(_PROBE)
    for part, side in encode_parts(encoder, manifest, entries, parts):
        yield part, _tensors(encoder.head, text, side)


def _tensors(head: Any, text: Side, side: Side) -> dict[str, np.ndarray]:
    """What a part stores: the vectors of its entries, and their sides where the vectors are not exact."""
    tensors = {"vectors": first_stage(head, text, side)[1]}
    if not is_exact(head, text):
        tensors |= {f"side-{number:02d}": tensor for number, tensor in enumerate(side)}
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in tensors.items()}
