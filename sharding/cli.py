"""``python -m sharding``: the shard builder's command line."""

from __future__ import annotations

from collections.abc import Sequence

from sharding.common import commandline

VERBS = {
    "build": ("sharding.commands.build", "build deduplicated shards from published datasets"),
    "append": ("sharding.commands.append", "add datasets to a finished build without rewriting its shards"),
    "reshard": ("sharding.commands.reshard", "copy a build into shards of another size, without decoding"),
    "catalogue": ("sharding.commands.catalogue", "list every clip of every dataset, before any decision"),
    "verify": ("sharding.commands.verify", "find any flipped byte or cut in a build"),
    "inspect": ("sharding.commands.inspect", "show a build, or one sample of it"),
    "stats": ("sharding.commands.stats", "durations, sample rates, captions and licences of a build, with plots"),
    "export": ("sharding.commands.export", "write a build's tables as CSV files"),
    "explain": ("sharding.commands.explain", "tell the story of one clip"),
    "matches": ("sharding.commands.matches", "compare two sound files"),
    "report": ("sharding.commands.report", "write a build's HTML report"),
    "demo-corpus": ("sharding.commands.demo_corpus", "synthesise a small corpus in the published layouts"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return commandline.main(
        "python -m sharding",
        "Turn Clotho, AudioCaps, WavCaps and TACOS into deduplicated WebDataset shards.",
        VERBS,
        argv,
    )
