"""``python -m sharding``: the shard builder's command line."""

from __future__ import annotations

from collections.abc import Sequence

from sharding.common import commandline
from sharding.common.commandline import Command

_BUILD, _LOOK = "Build a data set", "Look into a data set"

COMMANDS = {
    "build": Command(_BUILD, "sharding.commands.build", "build deduplicated shards from published datasets"),
    "append": Command(_BUILD, "sharding.commands.append", "add datasets to a finished build, keeping its shards"),
    "reshard": Command(_BUILD, "sharding.commands.reshard", "copy a build into shards of another size"),
    "catalogue": Command(_BUILD, "sharding.commands.catalogue", "list every clip, before any decision"),
    "fetch-plan": Command(
        _BUILD, "sharding.commands.fetch_plan", "say where datasets are published, and how to get them"
    ),
    "demo-corpus": Command(_BUILD, "sharding.commands.demo_corpus", "synthesise a small corpus to try things out"),
    "verify": Command(_LOOK, "sharding.commands.verify", "find any flipped byte or cut in a build"),
    "inspect": Command(_LOOK, "sharding.commands.inspect", "show a build, or one sample of it"),
    "stats": Command(_LOOK, "sharding.commands.stats", "durations, sample rates, captions and licences, with plots"),
    "explain": Command(_LOOK, "sharding.commands.explain", "say what a clip matched, and what became of it"),
    "matches": Command(_LOOK, "sharding.commands.matches", "compare two sound files"),
    "leaks": Command(_LOOK, "sharding.commands.leaks", "say which evaluation clips the training clips hold"),
    "report": Command(_LOOK, "sharding.commands.report", "write a build's HTML report"),
    "export": Command(_LOOK, "sharding.commands.export", "write a build's tables as CSV files"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return commandline.main(
        "python -m sharding",
        "Turn Clotho, AudioCaps, WavCaps and TACOS into deduplicated WebDataset shards.",
        COMMANDS,
        argv,
    )
