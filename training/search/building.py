"""Makes an index: every window of a build's recordings encoded once, part by part.

A killed build of an index continues with the parts that it lacks.  An index of the same model and a build that has
grown keeps what it has and encodes only what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work, work_of
from training.data.captions import normalise
from training.data.loader import Loader
from training.data.mixture import select_rows
from training.evaluation.encoding import SideEncoder, join, side_encoder
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.run.progress import StatusLine
from training.search.entries import Part, Windows, entries_of, parts_of
from training.search.nearest import EXACT_UP_TO, make_lists
from training.search.reading import EntryOrder
from training.search.store import PARTS, SoundIndex, commit, hold, read_about, write_file

BATCH = 32  # windows that are encoded at once
MEASURED_WITH = 200  # captions by which the number of visited lists is chosen
_PROBE = ["a sound"]  # a caption whose side stands for any other: a first stage looks at each side alone


def make_index(
    retriever: Retriever,
    model: str,
    manifest: Any,
    folder: Path,
    splits: Sequence[str] = (),
    windows: Windows | None = None,
) -> dict[str, Any]:
    """Make an index of a build, or bring an index up to date with it.

    Args:
        retriever: the model.
        model: where it is, for those who search.
        manifest: of the build.
        folder: receives the index.
        splits: dataset/split or dataset each; none: the whole build.
        windows: how recordings are cut; None: to the longest stretch that the model was trained on, with half overlap.

    Returns:
        ``entries``, ``encoded`` (how many of them now), ``recordings``, ``seconds`` of sound, and ``search``: how the
        nearest vectors are found, for large indexes with the recall that was measured.

    Raises:
        InputError: the folder holds an index of another model or other windows, or a sample is damaged.
    """
    windows = windows or usual_windows(retriever)
    longest = retriever.audio_input.max_s
    if windows.length_s > longest:
        raise InputError("the model hears less at once", value=windows.length_s, remedy=f"at most {longest:g} s")
    source = {"model": fingerprint(retriever), "windows": asdict(windows)}
    with hold(folder):
        former = _former(folder, source)
        table = _selected(manifest.table, splits)
        entries = entries_of(table, original_paths(manifest), windows)
        parts = parts_of(entries)
        if not parts:
            raise InputError("the build has no samples to search", file=manifest.storage.url)
        encoded = _encode_missing(retriever, manifest, entries, parts, former, folder)
        about = {
            **source,
            "model_path": model,
            "shards": _absolute(manifest.storage.url),
            "plan": manifest.dataset["plan"],
            "entries": len(entries),
            "parts": {part.name: [part.begin, part.end] for part in parts},
        }
        about = _assemble(retriever, entries, parts, former, folder, about)
    begins, ends = entries["start_s"].to_numpy(), entries["end_s"].to_numpy()
    return {
        "out": str(folder),
        "entries": len(entries),
        "encoded": encoded,
        "recordings": len(set(entries["clip_id"].to_pylist())),
        "seconds": float((ends - begins).sum()),
        "width": about["width"],
        "search": about["search"],
    }


def usual_windows(retriever: Retriever) -> Windows:
    """The longest stretch of a recording that the model was trained on, and half of it from window to window."""
    length = min(retriever.recipe.data.crop_s, retriever.audio_input.max_s)
    return Windows(length, length / 2)


def fingerprint(retriever: Retriever) -> str:
    """A hash of all that decides a model's vectors: weights, sizes, front end, and the spelling of captions."""
    digest = xxhash.xxh3_128()
    data, audio = retriever.recipe.data, retriever.audio_input
    spelling = (data.lower, data.strip_punctuation, data.max_tokens)
    scored = retriever.recipe.head or retriever.recipe.task  # a task without a head scores in its own way
    digest.update(repr((asdict(audio), spelling, asdict(scored))).encode())
    for name, tensor in sorted(retriever.model.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def original_paths(manifest: Any) -> dict[str, str]:
    """The original file of each clip: below the dataset's folder where the build's work folder still names it."""
    storage: Storage = manifest.storage
    work = work_of(storage)
    folders: dict[str, Any] = {}
    if work.exists(Work.SETTINGS):
        settings = work.read_json(Work.SETTINGS)
        for key in ("roots", "sources"):
            if isinstance(settings.get(key), dict):
                folders |= settings[key]
    paths: dict[str, str] = {}
    for name in manifest.catalogue():
        table = storage.read_table(name, ["clip_id", "dataset", "path"])
        for clip, dataset, path in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if path is not None:
                paths[clip] = f"{str(folders[dataset]).rstrip('/')}/{path}" if dataset in folders else path
    return paths


def first_stage(head: Any, text: Side, audio: Side) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of texts and of sounds whose dot products find the candidates; see `Head.first_stage`.

    Raises:
        InputError: the head has none.
    """
    with torch.no_grad():
        found = head.first_stage(text, audio, head.shared())
    if found is None:
        raise InputError(
            "a head without vectors of clips alone cannot be searched by an index",
            value=type(head).__name__,
            remedy="give it a first_stage; see docs/METHODS.md",
        )
    return found[0].float(), found[1].float()


def is_exact(head: Any, side: Side) -> bool:
    """Whether the dot products of the vectors are the scores."""
    return head.embedding(side) is not None


def _selected(table: pa.Table, splits: Sequence[str]) -> pa.Table:
    if not splits:
        return table
    chosen = np.zeros(table.num_rows, bool)
    for name in splits:
        chosen |= select_rows(table, name)
    return table.filter(pa.array(chosen))


def _absolute(url: str) -> str:
    local = Storage(url).local
    return url if local is None else str(local.resolve())


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


def _encode_missing(
    retriever: Retriever, manifest: Any, entries: pa.Table, parts: list[Part], former: SoundIndex | None, folder: Path
) -> int:
    """Encode the parts that neither the former index nor a killed build has; returns how many entries these hold."""
    known = set() if former is None else set(former.about["parts"])
    source = _source_of(retriever)
    missing = [p for p in parts if p.name not in known and _read_part(_part_file(folder, p, source), len(p)) is None]
    total, done = sum(map(len, parts)), sum(map(len, parts)) - sum(map(len, missing))
    if not missing:
        return 0
    (folder / PARTS).mkdir(exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = side_encoder(retriever.model, retriever.recipe.data, device)
    line = StatusLine("encoding windows", total, done)
    line.update(done)
    for part, tensors in _encoded(encoder, retriever, manifest, entries, missing):
        write_file(_part_file(folder, part, source), lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
        done += len(part)
        line.update(done)
    return sum(map(len, missing))


def _encoded(
    encoder: SideEncoder, retriever: Retriever, manifest: Any, entries: pa.Table, parts: list[Part]
) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
    """The tensors of each part in turn; one loader reads for all of them."""
    order = EntryOrder(entries, parts, BATCH)
    loader = Loader(manifest, order, encoder.settings, encoder.audio_input, encoder.tokenizer, train=False)
    text = retriever.encode_texts(_PROBE)
    waiting, sides = iter(parts), []
    part = next(waiting)
    for batch in loader.epoch(0):
        if batch.failures:
            remedy = "rebuild the shard that `earshot verify` names"
            raise InputError(f"a sample cannot be read: {batch.failures[0]}", remedy=remedy)
        sides.append(tuple(tensor.detach() for tensor in encoder.audio(batch)))
        if sum(len(side[0]) for side in sides) < len(part):
            continue
        yield part, _tensors(encoder.head, text, join(sides))
        sides = []
        part = next(waiting, part)


def _tensors(head: Any, text: Side, side: Side) -> dict[str, np.ndarray]:
    """What a part stores: the vectors of its entries, and their sides where the vectors are not exact."""
    tensors = {"vectors": first_stage(head, text, side)[1]}
    if not is_exact(head, text):
        tensors |= {f"side-{number:02d}": tensor for number, tensor in enumerate(side)}
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _source_of(retriever: Retriever) -> str:
    return fingerprint(retriever)[:16]


def _part_file(folder: Path, part: Part, source: str) -> Path:
    return folder / PARTS / f"{part.name}-{source}.safetensors"


def _read_part(path: Path, count: int) -> dict[str, np.ndarray] | None:
    """The tensors of a part that is finished; None where it is not."""
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    return tensors if "vectors" in tensors and all(len(each) == count for each in tensors.values()) else None


def _assemble(
    retriever: Retriever,
    entries: pa.Table,
    parts: list[Part],
    former: SoundIndex | None,
    folder: Path,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Join the parts into the files of the index and commit them; returns index.json."""
    facts = hashlib.sha256()
    for batch in entries.to_batches():
        facts.update(repr(batch.to_pydict()).encode())
    key = hashlib.sha256(repr((about, facts.hexdigest())).encode()).hexdigest()[:12]
    names = [f"entries-{key}.arrow"]
    write_file(folder / names[0], lambda path: _write_arrow(entries, path))
    arrays = _Stacked(parts, former, folder, _source_of(retriever))
    for name, shape in arrays.shapes.items():
        names.append(f"{name}-{key}.npy")
        write_file(folder / names[-1], lambda path, name=name, shape=shape: arrays.write(name, shape, path))  # type: ignore[misc]
    about["width"] = arrays.shapes["vectors"][1]
    about["search"] = {"kind": "exact"}
    if len(entries) > EXACT_UP_TO:
        names.append(f"lists-{key}.faiss")
        vectors = np.load(folder / f"vectors-{key}.npy", mmap_mode="r", allow_pickle=False)
        queries = _sample_queries(retriever, entries, vectors)
        write_file(
            folder / names[-1],
            lambda path: about["search"].update({"kind": "lists", **make_lists(vectors, queries, path)}),
        )
    if former is not None and "tower" in former.about:
        about["tower"] = former.about["tower"]
        names += former.about["tower"]["files"]
    commit(folder, about, names)
    return about


def _write_arrow(entries: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, entries.schema) as writer:
        writer.write_table(entries)


class _Stacked:
    """The arrays of all parts, one after the other; parts come from the former index or from their own files."""

    def __init__(self, parts: list[Part], former: SoundIndex | None, folder: Path, source: str) -> None:
        self._parts, self._former, self._folder, self._source = parts, former, folder, source
        total = parts[-1].end
        shapes: dict[str, tuple[int, ...]] = {}
        for part in parts:
            for name, array in self._arrays(part).items():
                known = shapes.get(name, array.shape[1:])
                shapes[name] = tuple(map(max, known, array.shape[1:]))  # shorter sides are padded, as in `join`
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
        found = _read_part(_part_file(self._folder, part, self._source), len(part))
        if found is None:
            remedy = "run the same command again, which encodes it again"
            raise InputError(
                "a part of the index is gone", file=_part_file(self._folder, part, self._source), remedy=remedy
            )
        return found


def _sample_queries(retriever: Retriever, entries: pa.Table, vectors: np.ndarray) -> np.ndarray:
    """Vectors of captions of entries, ``[n, d]``; of the entries themselves where none has a caption."""
    rows = np.unique(np.linspace(0, len(entries) - 1, MEASURED_WITH).astype(int))
    written = entries["captions"].take(pa.array(rows)).to_pylist()
    texts = [normalise(captions[0], retriever.recipe.data) for captions in written if captions]
    if not any(texts):
        return np.ascontiguousarray(vectors[rows])
    side = retriever.encode_texts([text for text in texts if text])
    head = retriever.model.head
    sound = retriever.encode_wave(np.zeros(retriever.audio_input.segment, np.float32))
    return np.asarray(first_stage(head, side, sound)[0].cpu().numpy())
