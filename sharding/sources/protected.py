"""Protected splits: the evaluation data that training must never contain."""

from __future__ import annotations

from sharding.common.errors import InputError
from sharding.sources import SOURCES

DEFAULT_PROTECT = "clotho/validation,clotho/evaluation,audiocaps/val,audiocaps/test,tacos/test"
# Lists keep other collections away from these datasets, and name the datasets' own training clips too.
NEVER_LISTED = frozenset({"clotho", "audiocaps"})


def parse_protect(text: str = DEFAULT_PROTECT) -> frozenset[tuple[str, str]]:
    """``DATASET/SPLIT,...`` as a set of (dataset, split); an empty text protects nothing.

    Raises:
        InputError: an entry is not DATASET/SPLIT, or a published dataset has no such split.
    """
    found = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        dataset, slash, split = entry.partition("/")
        if not slash or not dataset or not split or "/" in split:
            raise InputError(
                "not a protected split", value=entry, remedy="write DATASET/SPLIT,... such as clotho/evaluation"
            )
        if dataset in SOURCES and split not in SOURCES[dataset].splits:
            raise InputError(
                f"{dataset} has no such split", value=entry, remedy=f"one of {', '.join(SOURCES[dataset].splits)}"
            )
        found.add((dataset, split))
    return frozenset(found)


def source_of(identity: str) -> str:
    """The identity without the start of an excerpt: what clips of one recording have in common."""
    return identity.partition("@")[0]
