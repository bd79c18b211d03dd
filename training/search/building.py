"""Makes an index: every window of a build's recordings encoded once, part by part.

A killed build of an index continues with the parts that it lacks.  An index of the same model and a build that has
grown keeps what it has and encodes only what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner, Runner
from training.data.captions import normalise
from training.data.sampling.originals import original_paths
from training.models.retriever import Retriever
from training.run.progress import StatusLine
from training.search.entries import BLOCK, Part, Windows, entry_batches, parts_of, values_at
from training.search.nearest import EXACT_UP_TO, make_lists
from training.search.parts import PartEncoder, Source, part_shapes, read_part
from training.search.store import (
    SoundIndex,
    commit,
    hold,
    move_file,
    read_about,
    read_entries,
    require_own,
    write_entries,
    write_file,
)
from training.search.vectors import fingerprint, first_stage

TOGETHER = 4  # parts that a worker takes at once
LISTED_AT_ONCE = 100_000  # samples whose windows are listed in seconds, about which nobody needs to hear
MEASURED_WITH = 200  # captions by which the number of visited lists is chosen


def make_index(
    retriever: Retriever, manifest: Any, source: Source, folder: Path, runner: Runner | None = None
) -> dict[str, Any]:
    """Make an index of a build, or bring an index up to date with it.

    Args:
        retriever: the model of ``source``.
        manifest: the manifest of the build of ``source``.
        source: what is indexed.
        folder: receives the index.
        runner: encodes the parts; None: this process.

    Returns:
        ``entries``, ``encoded`` (how many of them now), ``recordings``, ``seconds`` of sound in them, ``width`` of a
        vector, and ``search``: how the nearest vectors are found, for large indexes with the recall that was measured.

    Raises:
        InputError: the folder holds an index of another model or other windows, or a sample is damaged.
    """
    longest = retriever.audio_input.max_s
    if source.windows.length_s > longest:
        raise InputError(
            "windows are longer than what the model hears at once",
            value=source.windows.length_s,
            remedy=f"at most {longest:g} s",
        )
    key = fingerprint(retriever)
    made = {"model": key, "windows": asdict(source.windows)}
    encoder = PartEncoder(source, folder, key)
    samples = source.select(manifest)
    if not len(samples):
        remedy = "see what became of its clips: earshot report OUT; correct them, and build again"
        raise InputError("the build has no samples to search", file=manifest.storage.url, remedy=remedy)
    require_own(folder)
    with hold(folder):
        former = _former(folder, made)
        entries = _list_entries(encoder.listed, samples, original_paths(manifest), source.windows)
        parts = parts_of(entries)
        encoder.opened = retriever, manifest, entries
        encoded = _encode_missing(encoder, parts, former, runner or LocalRunner())
        recordings = entries.select(["clip_id", "recording_s"]).group_by("clip_id").aggregate([("recording_s", "max")])
        about = {
            **made,
            "model_path": source.model,
            "shards": source.shards,
            "plan": manifest.dataset["plan"],
            "entries": len(entries),
            "recordings": len(recordings),
            "seconds": round(pc.sum(recordings["recording_s_max"]).as_py(), 3),
            "parts": {part.name: [part.begin, part.end] for part in parts},
        }
        about = _assemble(retriever, entries, parts, former, encoder, about)
    shown = ("entries", "recordings", "seconds", "width", "search")
    return {"out": str(folder), "encoded": encoded, **{name: about[name] for name in shown}}


def _list_entries(path: Path, samples: pa.Table, paths: Mapping[str, str], windows: Windows) -> pa.Table:
    """The entries of an index, written to a file, from which this process and its workers map them."""
    line = StatusLine("listing windows, samples", len(samples), quiet=len(samples) <= LISTED_AT_ONCE)

    def batches() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(entry_batches(samples, paths, windows), 1):
            yield batch
            line.update(min(number * BLOCK, len(samples)))

    path.parent.mkdir(exist_ok=True)
    write_file(path, lambda draft: write_entries(draft, batches()))
    return read_entries(path)


def _encode_missing(encoder: PartEncoder, parts: list[Part], former: SoundIndex | None, runner: Runner) -> int:
    """Encode the parts that neither the former index nor a killed build has; returns how many entries these hold."""
    known = set() if former is None else set(former.about["parts"])
    missing = [part for part in parts if part.name not in known and part_shapes(encoder.file(part), len(part)) is None]
    done = sum(map(len, parts)) - sum(map(len, missing))
    if not missing:
        return 0
    line = StatusLine("encoding windows", sum(map(len, parts)), done)
    line.update(done)
    alone = isinstance(runner, LocalRunner) and runner.workers == 1  # one loader then reads for all parts
    together = len(missing) if alone else TOGETHER
    groups = [missing[first : first + together] for first in range(0, len(missing), together)]
    encoder.report = lambda within: line.update(done + within)
    for encoded in runner.map(encoder, groups):
        done += encoded
        line.update(done)
    return sum(map(len, missing))


def usual_windows(retriever: Retriever) -> Windows:
    """The longest stretch of a recording that the model was trained on, and half of it from window to window."""
    length = min(retriever.recipe.data.crop_s, retriever.audio_input.max_s)
    return Windows(length, length / 2)


def _former(folder: Path, source: Mapping[str, Any]) -> SoundIndex | None:
    """The finished index in the folder, if there is one.

    Raises:
        InputError: it is of another model or has other windows.
    """
    about = read_about(folder)
    if about is None:
        return None
    for key, name in (("model", "model"), ("windows", "length or hop of windows")):
        if about.get(key) != source[key]:
            raise InputError(
                f"the folder holds an index of another {name}",
                file=folder,
                value=about.get("model_path") if key == "model" else about.get(key),
                remedy="name another folder for --out, or remove this one",
            )
    return SoundIndex.open(folder)


def _assemble(
    retriever: Retriever,
    entries: pa.Table,
    parts: list[Part],
    former: SoundIndex | None,
    encoder: PartEncoder,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Join the parts into the files of the index and commit them; returns index.json."""
    folder = encoder.folder
    with encoder.listed.open("rb") as file:
        facts = hashlib.file_digest(file, "sha256").hexdigest()
    key = hashlib.sha256(repr((about, facts)).encode()).hexdigest()[:12]
    names = [f"entries-{key}.arrow"]
    arrays = _Stacked(parts, former, encoder)
    for name, shape in arrays.shapes.items():
        names.append(f"{name}-{key}.npy")
        write_file(folder / names[-1], lambda path, name=name, shape=shape: arrays.write(name, shape, path))  # type: ignore[misc]
    about["width"] = arrays.shapes["vectors"][1]
    about["search"] = {"kind": "exact"}
    if len(entries) > EXACT_UP_TO:
        names.append(f"lists-{key}.faiss")
        vectors = np.load(folder / f"vectors-{key}.npy", mmap_mode="r", allow_pickle=False)
        queries = _sample_queries(retriever, entries, vectors)
        line = StatusLine("sorting vectors into lists", len(entries))

        def write_lists(path: Path) -> None:
            about["search"] = {"kind": "lists", **make_lists(vectors, queries, path, line.update)}

        write_file(folder / names[-1], write_lists)
    if former is not None and "tower" in former.about:
        about["tower"] = former.about["tower"]
        names += former.about["tower"]["files"]
    move_file(encoder.listed, folder / names[0])
    commit(folder, about, names)
    return about


class _Stacked:
    """The arrays of all parts, one after the other; parts come from the former index or from their own files."""

    def __init__(self, parts: list[Part], former: SoundIndex | None, encoder: PartEncoder) -> None:
        self._parts, self._former, self._encoder = parts, former, encoder
        total = parts[-1].end
        shapes: dict[str, tuple[int, ...]] = {}
        for part in parts:
            for name, shape in self._shapes(part).items():
                known = shapes.get(name, shape[1:])
                shapes[name] = tuple(map(max, known, shape[1:]))  # shorter sides are padded, as in `join`
        self.shapes = {name: (total, *shape) for name, shape in sorted(shapes.items(), reverse=True)}

    def write(self, name: str, shape: tuple[int, ...], path: Path) -> None:
        """Write one array of all entries."""
        first = self._arrays(self._parts[0])[name]
        out = np.lib.format.open_memmap(path, "w+", first.dtype, shape)
        for part in self._parts:
            array = self._arrays(part)[name]
            out[(slice(part.begin, part.end), *(slice(0, size) for size in array.shape[1:]))] = array
        out.flush()

    def _arrays(self, part: Part) -> Mapping[str, np.ndarray]:
        if self._former is not None and part.name in self._former.about["parts"]:
            begin, end = self._former.about["parts"][part.name]
            sides = {f"side-{number:02d}": side for number, side in enumerate(self._former.sides)}
            return {name: array[begin:end] for name, array in ({"vectors": self._former.vectors} | sides).items()}
        return read_part(self._encoder.file(part), part)

    def _shapes(self, part: Part) -> Mapping[str, tuple[int, ...]]:
        shapes = part_shapes(self._encoder.file(part), len(part))  # reads no vectors
        return shapes or {name: array.shape for name, array in self._arrays(part).items()}


def _sample_queries(retriever: Retriever, entries: pa.Table, vectors: np.ndarray) -> np.ndarray:
    """Vectors of captions of entries, ``[n, d]``; of the entries themselves where none has a caption."""
    rows = np.unique(np.linspace(0, len(entries) - 1, MEASURED_WITH).astype(int))
    written = values_at(entries["captions"], rows.tolist())
    texts = [normalise(captions[0], retriever.recipe.data) for captions in written if captions]
    if not any(texts):
        return np.ascontiguousarray(vectors[rows])
    side = retriever.encode_texts([text for text in texts if text])
    head = retriever.model.head
    sound = retriever.encode_wave(np.zeros(retriever.audio_input.segment, np.float32))
    return np.asarray(first_stage(head, side, sound)[0].cpu().numpy())
