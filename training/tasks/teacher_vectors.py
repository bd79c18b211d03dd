"""Writing the vectors of a teacher; see `training.tasks.teachers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.data.sampling.mixture import select_rows
from training.evaluation.whole_clips import BATCH, encode_build
from training.tasks.teachers import CAPTIONS, CLIPS


def write_teacher(retriever: Any, manifest: Any, splits: Sequence[str] | None, folder: Storage) -> dict[str, Any]:
    """Write the vectors of all clips and captions of some splits; an earlier teacher there is replaced.

    Args:
        retriever: the model.
        manifest: the manifest of the build.
        splits: dataset/split each; None: every split of the build.
        folder: receives `CLIPS` (clip_id, embedding) and `CAPTIONS` (text as published, embedding).

    Raises:
        InputError: the model has no vectors of clips alone, or the build has no such split.
    """
    head, table = retriever.model.head, manifest.table
    if head.embedding(retriever.encode_texts(["a sound"])) is None:
        remedy = "name its run or export in distillation.teachers: it is then run on every batch"
        raise InputError("a head with attention has no vectors of clips alone", value=retriever.method, remedy=remedy)
    names = list(splits) if splits else sorted(pc.unique(table["dataset"]).to_pylist())
    chosen = np.zeros(table.num_rows, bool)
    for name in names:
        chosen |= select_rows(table, name)
    captions = pc.list_flatten(table["captions"].filter(pa.array(chosen))).combine_chunks()
    texts = sorted(set(captions.field("text").to_pylist()) - {None})
    vectors = [
        head.embedding(retriever.encode_texts(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH)
    ]
    clips: list[str] = []
    sounds = []
    for name in names:
        encoded = encode_build(retriever, manifest, name)
        clips += encoded.clips
        sounds.append(head.embedding(encoded.sides))
    folder.remove(CLIPS)  # it is written last: a folder without it holds no vectors
    _write(folder, CAPTIONS, "text", texts, torch.cat(vectors))
    width = _write(folder, CLIPS, "clip_id", clips, torch.cat(sounds))
    return {"clips": len(clips), "captions": len(texts), "width": width, "out": folder.url}


def _write(folder: Storage, file: str, name: str, keys: list[str], vectors: torch.Tensor) -> int:
    rows = vectors.cpu().float().numpy()
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    folder.write_table(file, pa.table({name: keys, "embedding": embedding}))
    return int(rows.shape[1])
