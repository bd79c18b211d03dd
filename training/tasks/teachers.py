"""Teachers of a retrieval task: models whose scores of all pairs of the global batch are trained on.

A teacher is a folder.  An export, a checkpoint or a run is run on every batch, on the same crops and masks as the
student; that works for any head, and needs the student's kind of audio features.  A folder of stored vectors, which
``teach`` writes, holds the vectors of whole clips and of captions, so it costs nothing per step and may come from any
encoder, but only from heads whose scores are dot products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.schema import stable_id
from training.data.batch import Batch
from training.data.captions import normalise, tokenise
from training.data.features import AudioInput
from training.data.settings import DataSettings
from training.models.heads.base import DotProduct, Scorer, Side

CLIPS, CAPTIONS = "clips.parquet", "captions.parquet"  # tables of a folder of stored vectors


class RetrievalTeacher(ABC):
    """Scores captions against clips; it is not trained, and DeepSpeed does not know it."""

    scorer: Scorer

    @abstractmethod
    def sides(self, batch: Batch) -> tuple[Side, Side]:
        """The sides of the batch's captions and of its clips, on the device of the batch."""


class ModelTeacher(RetrievalTeacher):
    """A trained model that is run on every batch.

    Args:
        retriever: the model, as `training.models.hub.open_model` gives it.
        student: the audio input of the student; the teacher's must be the same.
        folder: where the teacher came from, for messages.
    """

    def __init__(self, retriever: Any, student: AudioInput, folder: str) -> None:
        if retriever.audio_input != student:
            raise InputError(
                f"a teacher hears {retriever.audio_input}, the student {student}",
                file=folder,
                remedy="store the teacher's vectors first: `teach MODEL --shards OUT --out FOLDER`",
            )
        self._retriever = retriever
        self.scorer = retriever.model.head
        retriever.model.requires_grad_(False)

    def sides(self, batch: Batch) -> tuple[Side, Side]:
        device, count = batch.features.device, len(batch)
        full = batch if count else batch.placeholder()
        model = self._retriever.model.to(device)
        with torch.no_grad():
            tokens, mask = tokenise(self._retriever.tokenizer, full.texts, self._retriever.recipe.data)
            text = model.text_side(tokens.to(device), mask.to(device))
            audio = model.audio_side(full.features, full.frames, full.seeds)
        return tuple(tensor[:count] for tensor in text), tuple(tensor[:count] for tensor in audio)


class StoredTeacher(RetrievalTeacher):
    """Vectors of clips and captions that were computed once.

    Args:
        folder: what ``teach`` wrote.
        settings: how the student reads captions, by which they are found.
    """

    def __init__(self, folder: Storage, settings: DataSettings) -> None:
        self.folder, self.scorer = folder, DotProduct()
        clips, captions = (_read(folder, name) for name in (CLIPS, CAPTIONS))
        self._clips = _Vectors([stable_id(clip) for clip in clips["clip_id"].to_pylist()], clips)
        texts = [stable_id(normalise(text, settings)) for text in captions["text"].to_pylist()]
        self._captions = _Vectors(texts, captions)

    def sides(self, batch: Batch) -> tuple[Side, Side]:
        found = []
        for what, ids, vectors in (("caption", batch.caption, self._captions), ("clip", batch.clip, self._clips)):
            rows = vectors.find(ids.cpu().numpy())
            if (rows < 0).any():
                number = int(np.flatnonzero(rows < 0)[0])
                raise InputError(
                    f"the teacher has no vector of a {what}",
                    file=self.folder.url,
                    value=batch.texts[number] if what == "caption" else batch.keys[number],
                    remedy="write its vectors for every split of data.train: `teach MODEL --shards OUT --out FOLDER`",
                )
            found.append((torch.from_numpy(vectors.values[rows]).to(batch.seeds.device),))
        return found[0], found[1]


class _Vectors:
    """Vectors by 64-bit id."""

    def __init__(self, ids: list[int], table: Any) -> None:
        order = np.argsort(np.array(ids, np.int64), kind="stable")
        self._ids = np.array(ids, np.int64)[order]
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        self.values = flat.reshape(len(ids), -1)[order].astype(np.float32)

    def find(self, ids: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The row of each id; -1 where there is none."""
        rows = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return np.where(self._ids[rows] == ids, rows, -1)


def open_teacher(name: str, student: AudioInput, settings: DataSettings, trust_code: bool) -> RetrievalTeacher:
    """The teacher that a recipe names; ``InputError`` where it is none, or has code that is not trusted."""
    from training.models.hub import open_model  # it builds tasks itself

    folder = Storage(name)
    if folder.exists(CLIPS):
        return StoredTeacher(folder, settings)
    return ModelTeacher(open_model(name, trust_code), student, name)


def _read(folder: Storage, name: str) -> Any:
    try:
        return folder.read_table(name)
    except OSError as error:
        raise InputError(f"cannot be read as a table of vectors: {error}", file=folder.name(name)) from error
