"""The page of an analysis: one HTML file that opens from disk, with everything inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sharding.audio import decode_segment
from sharding.common.errors import InputError
from sharding.common.excerpts import player, spectrogram
from sharding.common.pages import environment
from sharding.common.storage import located
from sharding.layout import shard_name
from training.analysis import spaces as spaces_module
from training.analysis.attention import attention
from training.analysis.spaces import distances, project, spaces
from training.data.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.counting import comparable
from training.evaluation.encoding import encode_clips, encode_texts, side_encoder
from training.evaluation.run import scored_side
from training.evaluation.scores import Questions, figures, rank_all
from training.evaluation.split import read_split
from training.models.heads.base import Side, rows_of
from training.objectives.pairs.tiled import score_all
from training.run.progress import StatusLine

TEMPLATES = Path(__file__).parent / "templates"
POINTS = 1500  # of each modality that a projection shows
MOST = 30_000_000  # scores that one page is made of
PREFERRED = 3  # clips that the model preferred, shown of each example
HEARD_S = 10.0  # of a clip on the page


@dataclass(frozen=True)
class Query:
    """A caption and what the model made of it.

    Attributes:
        caption: as published.
        clip: its own clip.
        rank: of its own clip, from 1; of equal scores, the mean.
        margin: the score of its own clip minus that of the best other one.
        preferred: the best other clips.
    """

    caption: str
    clip: str
    rank: float
    margin: float
    preferred: tuple[str, ...]


def analyse(retriever: Any, manifest: Any, split: str, out: str, examples: int = 24, batch: int = 32) -> dict[str, Any]:
    """Write the page of a model on a split.

    Args:
        retriever: the model.
        manifest: of the build.
        split: dataset/split; every caption is scored against every clip.
        out: the HTML file.
        examples: captions that are shown with sound: half of them the worst ones.
        batch: clips, or captions, that are encoded at once.

    Returns:
        the figures on the page.

    Raises:
        InputError: the split is too large for a page.
    """
    encoder = side_encoder(retriever.model, retriever.recipe.data)
    order = SequentialOrder(manifest.table, split, encoder.settings, batch)
    read = read_split(manifest.table, split, order, encoder.settings)
    questions = Questions.of(read, None, encoder.settings)
    if len(read.captions) * len(read.clips) > MOST:
        raise InputError(
            f"{len(read.captions)} captions and {len(read.clips)} clips are too many for one page",
            value=split,
            remedy="analyse a smaller split",
        )
    line = StatusLine("batches of clips", order.steps_per_epoch)
    audio = encode_clips(encoder, manifest, order, LocalGroup(), line.report)
    text = encode_texts(encoder, read.captions, LocalGroup(), batch)
    head = encoder.head
    scores = comparable(score_all(head, scored_side(head, text), scored_side(head, audio)).float().numpy())
    found = figures(rank_all(lambda: iter([(0, scores)]), questions), questions)
    queries = browse(scores, questions)
    apart = distances(scores, read.clip_of)
    values = {
        "title": f"Earshot: what a model makes of {split}",
        "figures": found,
        "method": retriever.method,
        "spaces": _spaces(head, text, audio, questions),
        "test": apart.test(),
        "histogram": apart.histogram(),
        "pairs": len(apart.matched),
        "queries": [asdict(query) for query in queries],
        "examples": _examples(retriever, manifest, queries, questions, audio, examples),
    }
    page = environment(TEMPLATES).get_template("analysis.html").render(values)
    storage, name = located(out)
    storage.write(name, page.encode())
    shown = {space["name"]: space["figures"] for space in values["spaces"]}
    return {"out": out, "figures": found, "spaces": shown, "distances": values["test"]}


def browse(scores: npt.NDArray[np.float32], questions: Questions) -> list[Query]:
    """Every caption with its rank, its margin and what the model preferred, the worst margin first."""
    queries = []
    for row, own in enumerate(questions.clip_of.tolist()):
        others = np.argsort(-scores[row], kind="stable")[: PREFERRED + 1].tolist()
        best = [clip for clip in others if clip != own][:PREFERRED]
        score = scores[row, own]
        above, ties = int((scores[row] > score).sum()), int((scores[row] == score).sum())
        margin = float(score - scores[row, best[0]]) if best else 0.0
        preferred = tuple(questions.clips[clip] for clip in best)
        queries.append(Query(questions.texts[row], questions.clips[own], above + (ties + 1) / 2, margin, preferred))
    return sorted(queries, key=lambda query: (query.margin, query.clip, query.caption))


def _spaces(head: Any, text: Side, audio: Side, questions: Questions) -> list[dict[str, Any]]:
    """The projection and the figures of each space, of one caption a clip."""
    first = np.flatnonzero(np.diff(questions.clip_of, prepend=-1))
    chosen = first[np.linspace(0, len(first) - 1, min(POINTS, len(first))).astype(int)]
    clips = torch.from_numpy(questions.clip_of[chosen])
    shown = []
    for space in spaces(head, rows_of(text, torch.from_numpy(chosen)), rows_of(audio, clips)):
        method, texts, sounds = project(space)
        names = [questions.clips[clip] for clip in clips.tolist()]
        captions = [questions.texts[row] for row in chosen.tolist()]
        shown.append(
            {
                "name": space.name,
                "method": method,
                "texts": list(zip(texts.tolist(), captions, strict=True)),
                "sounds": list(zip(sounds.tolist(), names, strict=True)),
                "figures": spaces_module.figures(space),
            }
        )
    return shown


def _examples(
    retriever: Any, manifest: Any, queries: Sequence[Query], questions: Questions, audio: Side, count: int
) -> list[dict[str, Any]]:
    """Captions with sound: the worst ones, and others spread from there to the best."""
    worst = list(queries[: count // 2])
    rest = queries[len(worst) :]
    spread = [rest[number] for number in np.linspace(0, len(rest) - 1, min(count - len(worst), len(rest))).astype(int)]
    own_clips = questions.clip_of.tolist()
    columns = {clip: number for number, clip in enumerate(questions.clips)}
    read = dict(zip(questions.texts, questions.read, strict=True))
    caption_of = {questions.clips[clip]: questions.texts[row] for row, clip in reversed(list(enumerate(own_clips)))}
    first = manifest.table["window"].to_numpy() == 0
    ids = manifest.table["clip_id"].to_pylist()
    rows = {clip: row for row, clip in enumerate(ids) if first[row] and clip in columns}
    sounds: dict[str, dict[str, Any]] = {}
    shown = []
    for query in dict.fromkeys([*worst, *spread]):
        clips = [query.clip, *query.preferred]
        for clip in clips:
            if clip not in sounds:
                sounds[clip] = _sound(manifest, rows[clip], caption_of[clip])
        own = columns[query.clip]
        side = rows_of(audio, slice(own, own + 1))
        heard = min(sounds[query.clip]["seconds"], retriever.audio_input.max_s)
        looked = attention(retriever, read[query.caption], side, heard)
        shown.append(
            {
                "query": query,
                "clips": [sounds[clip] | {"clip": clip, "own": clip == query.clip} for clip in clips],
                "attention": None if looked is None else _drawn(looked, heard),
            }
        )
    return shown


def _sound(manifest: Any, row: int, caption: str) -> dict[str, Any]:
    """A clip's first seconds as a player and a picture; ``row`` is that of its first window in the manifest."""
    sample = manifest.table.slice(row, 1).to_pylist()[0]
    data = manifest.storage.read(shard_name(sample["shard"]), sample["audio_offset"], sample["audio_bytes"])
    wave, rate = decode_segment(data, 0.0, HEARD_S)
    return {
        "sound": player(wave, rate),
        "picture": spectrogram(wave, rate),
        "caption": caption,
        "seconds": len(wave) / rate,
    }


def _drawn(looked: Any, seconds: float) -> list[dict[str, Any]]:
    """Rows of the attention below the picture of a clip: edge and width of each segment in percent, and its weight."""
    shown = max(min(seconds, HEARD_S), 1e-9)
    rows = []
    for token, weights in zip(looked.tokens, looked.weights.tolist(), strict=True):
        cells = [
            {
                "left": 100 * begin / shown,
                "width": 100 * (min(end, shown) - begin) / shown,
                "weight": weight,
                "shade": weight / max(weights),
            }
            for (begin, end), weight in zip(looked.times, weights, strict=True)
            if begin < shown
        ]
        rows.append({"token": token, "cells": cells})
    return rows
