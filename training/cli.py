"""``python -m training``: the trainer's command line."""

from __future__ import annotations

from collections.abc import Sequence

from sharding import commandline

VERBS = {
    "fit": ("training.commands.fit", "train the model that a recipe describes"),
    "evaluate": ("training.commands.evaluate", "measure retrieval on a split"),
    "search": ("training.commands.search", "find sounds by describing them"),
    "order": ("training.commands.order", "show any global batch of a recipe, without training"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return commandline.main(
        "python -m training", "Train and use audio-text retrieval models on Earshot shards.", VERBS, argv
    )
