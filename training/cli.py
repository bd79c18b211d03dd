"""``python -m training``: the trainer's command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharding.common import commandline

VERBS = {
    "fit": ("training.commands.fit", "train the model that a recipe describes"),
    "evaluate": ("training.commands.evaluate", "measure retrieval on a split"),
    "search": ("training.commands.search", "find sounds by describing them"),
    "embed": ("training.commands.embed", "write the vectors of clips"),
    "order": ("training.commands.order", "show any global batch of a recipe, without training"),
}


def main(argv: Sequence[str] | None = None) -> int:
    # the deepspeed launcher puts --local_rank=N before the verb; the environment says the same
    argv = [word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("--local_rank=")]
    return commandline.main(
        "python -m training", "Train and use audio-text retrieval models on Earshot shards.", VERBS, argv
    )
