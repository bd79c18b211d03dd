"""Small indexes for the tests of searching: untrained models over a build of synthetic sounds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sharding.common.runners import Runner
from tests.training.small_runs import small_recipe
from training.models import hub
from training.models.retriever import Retriever
from training.search.building import make_index, usual_windows
from training.search.entries import Windows
from training.search.parts import Source
from training.tasks.retrieval import assemble

ATTENTION = ["head={name: token-attention, dim: 16, heads: 2}"]
SHORT = Windows(1.0, 0.5)


def untrained(overrides: list[str], seed: int = 0) -> Retriever:
    recipe = small_recipe([*overrides, f"seed={seed}"])
    return Retriever(*assemble(recipe, ["a low hum", "a whistle", "some hiss"]), recipe)


def indexed(
    retriever: Retriever,
    manifest: Any,
    folder: Path,
    splits: tuple[str, ...] = (),
    windows: Windows | None = None,
    model: str = "model",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Make an index; by default of whole clips."""
    source = Source(model, False, manifest.storage.url, splits, windows or usual_windows(retriever))
    return make_index(retriever, manifest, source, folder, runner)


def exported(retriever: Retriever, folder: Path) -> Path:
    """An export of a model that no run has trained."""
    never_trained: Any = SimpleNamespace(step=0, state={})
    hub._draft(retriever, never_trained, folder).rename(folder)
    return folder
