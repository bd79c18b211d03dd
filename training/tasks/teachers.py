"""Teachers of a retrieval task: models whose scores of all pairs of the global batch are trained on.

A teacher is a folder.  An export, a checkpoint or a run is run on every batch, on the same crops and masks as the
student; that works for any head, and needs the student's kind of audio features.  Where the student's encoder is frozen
and its vectors are stored, a teacher with the same encoder reads these, and runs its head alone.  A folder of stored
vectors, which ``teach`` writes, holds the vectors of whole clips and of captions, so it costs nothing per step and may
come from any encoder, but only from heads whose scores are dot products.  A folder of scores, which ``scores`` and
``ensemble`` write, costs nothing per step either, and may come from any model; it has the scores of one split, and must
be on this machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.schema import stable_id
from training.data.batch import Batch
from training.data.captions import normalise, tokenise
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.evaluation.metrics import Ints
from training.evaluation.scores.files import ScoreFile, is_scores
from training.models.encoders.naming import encoder_name
from training.models.heads.base import DotProduct, Scorer, Side

CLIPS, CAPTIONS = "clips.parquet", "captions.parquet"  # tables of a folder of stored vectors


class RetrievalTeacher(ABC):
    """Scores captions against clips; it is not trained, and DeepSpeed does not know it."""

    scorer: Scorer

    @abstractmethod
    def sides(self, batch: Batch, encoders: Mapping[str, str]) -> tuple[Side, Side]:
        """The sides of the batch's captions and of its clips, on the device of the batch.

        ``encoders`` are the names of those that gave the vectors that the batch brings; see `Stored`.
        """


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
        self._names: dict[str, str] = {}

    def reads_stored(self, part: str, encoder: str, patches: bool = True) -> bool:
        """Whether its own encoder of a part gives the vectors of the encoder that has this name.

        ``patches`` says whether vectors of patches are stored too.
        """
        if part == "audio" and self._retriever.model.keeps_patches and not patches:
            return False
        if part not in self._names:
            found = self._retriever
            self._names[part] = encoder_name(found.recipe, part, getattr(found.model, part), found.tokenizer)
        return self._names[part] == encoder

    def sides(self, batch: Batch, encoders: Mapping[str, str]) -> tuple[Side, Side]:
        device, count = batch.seeds.device, len(batch)
        full = batch if count else batch.placeholder()
        model = self._retriever.model.to(device)
        with torch.no_grad():
            if "text" in encoders and self.reads_stored("text", encoders["text"]):
                text = model.head.text_side(model.captions(full))
            else:
                tokens, mask = tokenise(self._retriever.tokenizer, full.texts, self._retriever.recipe.data)
                text = model.text_side(tokens.to(device), mask.to(device))
            audio = model.clip_side(full)
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

    def sides(self, batch: Batch, encoders: Mapping[str, str]) -> tuple[Side, Side]:
        remedy = "write its vectors for every split of data.train: `teach MODEL --shards OUT --out FOLDER`"
        captions, clips = _rows_of(batch, self._captions.ids, self._clips.ids, "vector", self.folder.url, remedy)
        device = batch.seeds.device
        text, audio = self._captions.values[captions], self._clips.values[clips]
        return (torch.from_numpy(text).to(device),), (torch.from_numpy(audio).to(device),)


class ScoresTeacher(RetrievalTeacher):
    """Scores of all captions and clips of a split that were computed once.

    A side is the numbers of rows or of columns of the matrix, and the scorer reads the scores where they cross.

    Args:
        scores: what ``scores`` or ``ensemble`` wrote.
        settings: how the student reads captions, by which they are found.
    """

    def __init__(self, scores: ScoreFile, settings: DataSettings) -> None:
        self._where = scores.storage.url
        self.scorer = _Crossings(scores)
        texts = [stable_id(normalise(text, settings)) for text in scores.questions.texts]
        self._captions = _Ids(texts)
        self._clips = _Ids([stable_id(clip) for clip in scores.questions.clips])

    def sides(self, batch: Batch, encoders: Mapping[str, str]) -> tuple[Side, Side]:
        remedy = "score the split that the student is trained on, which must be one: `scores MODEL --split SPLIT`"
        captions, clips = _rows_of(batch, self._captions, self._clips, "score", self._where, remedy)
        device = batch.seeds.device
        return (torch.from_numpy(captions).to(device),), (torch.from_numpy(clips).to(device),)


class _Crossings(DotProduct):
    """The scorer of stored scores: rows and columns are numbers of the matrix."""

    def __init__(self, scores: ScoreFile) -> None:
        self._scores = scores.mapped()

    def pair_scores(self, rows: Side, columns: Side, shared: Side, /) -> torch.Tensor:
        found = self._scores.crossings(rows[0].cpu().numpy(), columns[0].cpu().numpy())
        return torch.from_numpy(found).to(rows[0].device)


class _Ids:
    """Numbers by 64-bit id; of equal ids, the first one's."""

    def __init__(self, ids: list[int]) -> None:
        array = np.array(ids, np.int64)
        self._order = np.argsort(array, kind="stable")
        self._ids = array[self._order]

    def find(self, ids: Ints) -> Ints:
        """The row of each id; -1 if there is none."""
        places = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return np.where(self._ids[places] == ids, self._order[places], -1)


class _Vectors:
    """Vectors, and the row of each id in them."""

    def __init__(self, ids: list[int], table: Any) -> None:
        self.ids = _Ids(ids)
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        self.values = flat.reshape(len(ids), -1).astype(np.float32)


def _rows_of(batch: Batch, captions: _Ids, clips: _Ids, what: str, folder: str, remedy: str) -> tuple[Ints, Ints]:
    """Where a teacher has the captions and the clips of a batch; ``InputError`` if one is missing."""
    found = []
    for kind, ids, known in (("caption", batch.caption, captions), ("clip", batch.clip, clips)):
        rows = known.find(ids.cpu().numpy())
        if (rows < 0).any():
            number = int(np.flatnonzero(rows < 0)[0])
            value = batch.texts[number] if kind == "caption" else batch.keys[number]
            raise InputError(f"the teacher has no {what} of a {kind}", file=folder, value=value, remedy=remedy)
        found.append(rows)
    return found[0], found[1]


def open_teacher(name: str, student: AudioInput, settings: DataSettings, trust_code: bool) -> RetrievalTeacher:
    """The teacher that a recipe names; ``InputError`` if it is none, or has code that is not trusted."""
    from training.models.hub import open_model  # it builds tasks itself

    folder = Storage(name)
    if is_scores(name, unfinished=True):
        return ScoresTeacher(ScoreFile.open(name), settings)
    if folder.exists(CLIPS):
        return StoredTeacher(folder, settings)
    return ModelTeacher(open_model(name, trust_code), student, name)


def _read(folder: Storage, name: str) -> Any:
    try:
        return folder.read_table(name)
    except OSError as error:
        raise InputError(f"cannot be read as a table of vectors: {error}", file=folder.name(name)) from error
