"""The page of an analysis: one HTML file that opens from disk, with everything inside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sharding.common.errors import InputError
from sharding.common.pages import environment
from sharding.common.storage import located
from training.analysis import spaces as spaces_module
from training.analysis.attention import attention
from training.analysis.examples import HEARD_S, Clips, Query, browse, chosen
from training.analysis.spaces import distances, project, spaces
from training.data.sampling.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.counting import comparable
from training.evaluation.encoding import encode_clips, encode_texts, side_encoder
from training.evaluation.figures import Questions, figures, rank_all
from training.evaluation.run import scored_side
from training.evaluation.split import read_split
from training.models.heads.base import Side, rows_of
from training.objectives.pairs.tiled import score_all
from training.run.progress import StatusLine

TEMPLATES = Path(__file__).parent / "templates"
POINTS = 1500  # of each modality that a projection shows
MOST = 30_000_000  # scores that one page is made of


def analyse(retriever: Any, manifest: Any, split: str, out: str, examples: int = 24, batch: int = 32) -> dict[str, Any]:
    """Write the page of a model on a split.

    Args:
        retriever: the model.
        manifest: the manifest of the build.
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
    queries = browse([(0, scores)], questions)
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
        "examples": _examples(retriever, chosen(queries, examples), questions, audio, Clips(questions, manifest)),
    }
    page = environment(TEMPLATES).get_template("analysis.html").render(values)
    storage, name = located(out)
    storage.write(name, page.encode())
    shown = {space["name"]: space["figures"] for space in values["spaces"]}
    return {"out": out, "figures": found, "spaces": shown, "distances": values["test"]}


def _spaces(head: Any, text: Side, audio: Side, questions: Questions) -> list[dict[str, Any]]:
    """The projection and the figures of each space, of one caption a clip."""
    first = np.flatnonzero(np.diff(questions.clip_of, prepend=-1))
    chosen = first[np.linspace(0, len(first) - 1, min(POINTS, len(first))).astype(int)]
    clips = torch.from_numpy(questions.clip_of[chosen])
    shown = []
    for space in spaces(head, rows_of(text, torch.from_numpy(chosen)), rows_of(audio, clips)):
        print(f"drawing the {space.name}, which can take a minute", file=sys.stderr, flush=True)
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


def _examples(retriever: Any, queries: Sequence[Query], questions: Questions, audio: Side, clips: Clips) -> list[Any]:
    """Captions with sound, and where in their own clip each token looks."""
    columns = {clip: number for number, clip in enumerate(questions.clips)}
    read = dict(zip(questions.texts, questions.read, strict=True))
    shown = []
    for query in queries:
        found = clips.of(query)
        own = columns[query.clip]
        side = rows_of(audio, slice(own, own + 1))
        heard = min(found[0]["seconds"], retriever.audio_input.max_s)
        looked = attention(retriever, read[query.caption], side, heard)
        shown.append({"query": query, "clips": found, "attention": None if looked is None else _drawn(looked, heard)})
    return shown


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
