"""Protected splits: the evaluation data that training must never contain."""

from __future__ import annotations

import re
from collections.abc import Collection

from sharding.common.errors import InputError
from sharding.sources import DATASETS

_WORD = re.compile(r"[a-z]+")
OWN = "*"  # in place of a dataset's name: every dataset of the user's own
EVALUATION_SPLITS = ("dev", "eval", "evaluation", "heldout", "test", "testing", "val", "valid", "validation")
DEFAULT_PROTECT = ",".join(
    [f"{one.name}/{split}" for one in DATASETS.values() for split in one.protected]
    + [f"{OWN}/{split}" for split in EVALUATION_SPLITS]
)
# Splits whose clips are never dropped as duplicates of other clips.
DEFAULT_KEEP = frozenset((one.name, split) for one in DATASETS.values() for split in one.kept)


def parse_protect(text: str = DEFAULT_PROTECT) -> frozenset[tuple[str, str]]:
    """``DATASET/SPLIT,...`` as a set of (dataset, split); an empty text protects nothing.

    ``*/WORD`` stands for every split of the user's own datasets in whose name WORD is a word, in upper or lower case:
    ``*/test`` protects ``test``, ``Test`` and ``test-clean``.

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
        if dataset in DATASETS and split not in DATASETS[dataset].splits:
            raise InputError(
                f"{dataset} has no such split", value=entry, remedy=f"one of {', '.join(DATASETS[dataset].splits)}"
            )
        found.add((dataset, split.lower() if dataset == OWN else split))
    return frozenset(found)


def is_protected(dataset: str, split: str, protect: Collection[tuple[str, str]]) -> bool:
    """Whether a split is protected by the set that ``parse_protect`` returned."""
    if (dataset, split) in protect:
        return True
    return dataset not in DATASETS and any((OWN, word) in protect for word in _WORD.findall(split.lower()))
