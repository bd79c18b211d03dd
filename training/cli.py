"""``python -m training``: the trainer's command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharding.common import commandline
from sharding.common.commandline import Command

_TRAIN, _USE = "Train a model", "Use a model"

COMMANDS = {
    "fit": Command(_TRAIN, "training.commands.fit", "train the model that a recipe describes"),
    "annotate": Command(_TRAIN, "training.commands.annotate", "write captions of several lengths and tags for clips"),
    "rewrite": Command(_TRAIN, "training.commands.rewrite", "write captions in other words with a language model"),
    "clusters": Command(_TRAIN, "training.commands.clusters", "join tags that mean the same"),
    "mine": Command(_TRAIN, "training.commands.mine", "find hard negatives of clips"),
    "order": Command(_TRAIN, "training.commands.order", "show any global batch of a recipe, without training"),
    "evaluate": Command(_USE, "training.commands.evaluate", "measure retrieval on a split"),
    "reproduce": Command(_TRAIN, "training.commands.reproduce", "train and measure a table of a paper"),
    "run-report": Command(_TRAIN, "training.commands.run_report", "write a page about a training run"),
    "analyse": Command(_USE, "training.commands.analyse", "write a page about what a model has learned"),
    "compare": Command(_USE, "training.commands.compare", "compare systems, with intervals and tests"),
    "ensemble": Command(_USE, "training.commands.ensemble", "measure means of the scores of several systems"),
    "submit": Command(_USE, "training.commands.submit", "write the challenge's table of predictions"),
    "scores": Command(_USE, "training.commands.scores", "write every query's score for every clip of a split"),
    "caption": Command(_USE, "training.commands.caption", "write captions and compare them with those of people"),
    "classify": Command(_USE, "training.commands.classify", "measure how well labels of sounds are told apart"),
    "moments": Command(_USE, "training.commands.moments", "measure how well moments of recordings are found"),
    "images": Command(_USE, "training.commands.images", "measure how well sounds find images, and images sounds"),
    "paint": Command(_USE, "training.commands.paint", "make an image of a sound with a diffusion pipeline"),
    "teach": Command(_TRAIN, "training.commands.teach", "write the vectors with which a model teaches another one"),
    "index": Command(_USE, "training.commands.index", "make the sounds of a build searchable"),
    "search": Command(_USE, "training.commands.search", "find sounds by describing them"),
    "serve": Command(_USE, "training.commands.serve", "a page on which an index is searched"),
    "embed": Command(_USE, "training.commands.embed", "write the vectors of clips"),
    "push": Command(_USE, "training.commands.push", "publish a model on the Hugging Face hub, with its card"),
    "rerank": Command(_USE, "training.commands.rerank", "let a language model judge the best candidates of any scores"),
    "convert": Command(_USE, "training.commands.convert", "write a model in the format of another library"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return commandline.main(
        "python -m training",
        "Train and use audio-text retrieval models on Earshot shards.",
        COMMANDS,
        without_local_rank(argv),
    )


def without_local_rank(argv: Sequence[str] | None) -> list[str]:
    """The arguments without ``--local_rank=N``: DeepSpeed's launcher adds it, and the environment says the same."""
    return [word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("--local_rank=")]
