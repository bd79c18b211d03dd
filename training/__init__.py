"""Training and use of audio-text retrieval models."""

from __future__ import annotations

from typing import Any

from training.run.quiet import silence_libraries

silence_libraries()


def __getattr__(name: str) -> Any:
    """``training.Earshot``, imported when it is first used: it takes seconds, and command lines do without it."""
    if name != "Earshot":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from training.models.earshot import Earshot

    return Earshot
