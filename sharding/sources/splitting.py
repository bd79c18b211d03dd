"""A random split of sounds that have none: by a seed, and with all clips of one original recording on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sharding.common.errors import InputError
from sharding.schema import stable_id

SHARES = {"test": 0.1, "validation": 0.1}  # of the clips; all others are for training
TRAIN = "train"


def random_splits(originals: Mapping[str, str], seed: int) -> dict[str, str]:
    """The split of each clip; clips of one original are in the same split.

    Originals are put into an order by a hash of seed and name.  The first of them that fit are the test split, until it
    has its share of the clips, the next ones are for validation, and the rest is for training.  So a clip that is added
    later moves few others.

    Args:
        originals: each clip, and the recording that it comes from.
        seed: another seed gives another split.

    Raises:
        InputError: there are fewer than three originals.
    """
    sizes = Counter(originals.values())
    if len(sizes) < 3:
        raise InputError(
            "too few recordings for train, validation and test, into which the build splits sounds at random",
            value=len(sizes),
            remedy="give more sounds (clips of one identity count as one recording), or a table with a column split",
        )
    order = sorted(sizes, key=lambda original: (stable_id(f"{seed} {original}"), original))
    split_of: dict[str, str] = {}
    for split, share in SHARES.items():
        left, taken = [original for original in order if original not in split_of], 0
        for original in left:
            if taken + sizes[original] / 2 <= share * len(originals):  # one that is too large stays for training
                split_of[original] = split
                taken += sizes[original]
        if not taken:
            split_of[min(left, key=lambda original: sizes[original])] = split
    return {clip: split_of.get(original, TRAIN) for clip, original in originals.items()}


def remark(splits: Mapping[str, str]) -> str:
    """A line about a split that was drawn, for people."""
    counts = Counter(splits.values())
    return "it has no splits, so its clips were split at random: " + ", ".join(
        f"{counts[split]} {split}" for split in (TRAIN, *reversed(SHARES))
    )
