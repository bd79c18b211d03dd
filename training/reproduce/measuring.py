"""The tests of a table of which each column is another test: labels, retrieval, images and captions.

What a test of a run found is stored, so that a plan that was killed does not test it again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from sharding.common.storage import Storage
from training.engine.distributed import Group
from training.evaluation.caption_scores import score_captions
from training.evaluation.captioning import write_captions
from training.evaluation.encoding import side_encoder
from training.evaluation.hearing import Noise
from training.evaluation.images import ImageTower, evaluate_images
from training.evaluation.run import EvaluationSettings, evaluate
from training.evaluation.zero_shot import ZeroShotSettings, classify
from training.models.hub import open_any
from training.reproduce.needs import has
from training.reproduce.plans import Cell
from training.run.log import flatten

BATCH = 32


def obstacle(cell: Cell, there: Collection[str], frames: Path | None, small: bool) -> str:
    """Why a cell cannot be measured on a build with the splits ``there``; "" where it can."""
    if not has(there, cell.split):
        return f"{cell.split} is not in the build"
    if cell.kind == "images" and small:
        return "small random encoders have no image tower"
    if cell.kind == "images" and frames is None:
        return "--frames DIR is not given"
    return ""


def measure(
    cell: Cell, export: Path, manifest: Any, group: Group, frames: Path | None, store: Path
) -> Mapping[str, float | str]:
    """Every figure of a cell's test, by name, or why there is none; the same on every rank.

    Args:
        cell: what is tested, and how.
        export: the export of the run.
        manifest: the manifest of the build.
        group: the ranks, which encode together.
        frames: the folder of images; None: there is none.
        store: a folder that keeps what was found.
    """
    storage, name = Storage(str(store)), f"{cell.test}.json"
    found: dict[str, float | str] = {}
    if not storage.exists(name):
        found = flatten(_test(cell, export, manifest, group, frames))
        if group.rank == 0:
            storage.write(name, json.dumps(found, indent=1).encode())
    group.barrier("a test of a plan")
    stored: dict[str, float | str] = json.loads(storage.read(name))
    return stored


def _test(cell: Cell, export: Path, manifest: Any, group: Group, frames: Path | None) -> Mapping[str, Any]:
    model = open_any(export)
    model.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    if cell.kind == "labels":
        return classify(model, manifest, ZeroShotSettings(cell.split, noise=Noise(cell.noise)), group)
    if cell.kind == "retrieval":
        encoder = side_encoder(model.model, model.recipe.data)
        return evaluate(encoder, manifest, EvaluationSettings(cell.split), group)
    if cell.kind == "images":
        assert frames is not None
        tower = ImageTower(model.recipe.text.source)
        return evaluate_images(model, manifest, cell.split, frames, tower, BATCH, group)
    written = write_captions(model, manifest, cell.split, BATCH, group)
    scores = score_captions(written.written, written.references)
    return scores.figures | scores.skipped
