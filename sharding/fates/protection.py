"""How far protected splits are protected: leaks into a clip can be found by sound only if its audio can be read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.sizes import quantity
from sharding.rows import rows
from sharding.shards.manifest import SplitProtection
from sharding.sources import DATASETS
from sharding.sources.protected import OWN, is_protected

LEAST_OWN_AUDIO = 0.5  # as PublishedDataset.least_audio, for users' own datasets, of which nothing is known
_FEW = 2  # this many clips without audio are never a reason to refuse, as long as the split has others


class _Clip(NamedTuple):
    clip_id: str
    dataset: str
    split: str
    problem: str | None


class _Fact(NamedTuple):
    clip_id: str
    error: str | None


def protection(
    catalogue: pa.Table, facts: pa.Table | None, protect: Collection[tuple[str, str]]
) -> list[SplitProtection]:
    """How far each protected split is protected, sorted by dataset and split.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS; None before any audio was read: then every audio file that was found counts as readable.
        protect: as ``parse_protect`` returns it.
    """
    errors = {} if facts is None else {row.clip_id: row.error for row in rows(facts, _Fact)}
    outcomes: dict[tuple[str, str], Counter[str | None]] = defaultdict(Counter)
    for pair in protect:
        if pair[0] != OWN:
            outcomes[pair] = Counter()
    for clip in rows(catalogue, _Clip):
        if is_protected(clip.dataset, clip.split, protect):
            unread = clip.problem if facts is None else clip.problem or "not_probed"
            outcomes[clip.dataset, clip.split][errors.get(clip.clip_id, unread)] += 1
    return [
        {
            "dataset": dataset,
            "split": split,
            "clips": counts.total(),
            "compared": counts[None],
            "not_compared": {error: counts[error] for error in sorted(filter(None, counts))},
        }
        for (dataset, split), counts in sorted(outcomes.items())
    ]


def is_unprotected(split: SplitProtection) -> bool:
    """Whether a split has no audio, or far less than a usual copy of its dataset."""
    lacking = split["clips"] - split["compared"]
    if lacking <= _FEW:
        return lacking > 0 and split["compared"] == 0
    dataset = DATASETS.get(split["dataset"])
    least = dataset.least_audio if dataset else LEAST_OWN_AUDIO
    return split["compared"] < least * split["clips"]


def check_protection(splits: Sequence[SplitProtection]) -> None:
    """Refuse to decide fates while a protected split has no audio, or far less than usual.

    Raises:
        InputError: names each such split, and how many of its clips could not be compared and why.
    """
    unprotected = [split for split in splits if is_unprotected(split)]
    if unprotected:
        lines = [protection_line(split) for split in unprotected]
        linked = any("out_of_root" in split["not_compared"] for split in unprotected)
        links = "; --follow-links reads files to which links lead out of the dataset's folder" if linked else ""
        raise InputError(
            "leaks into a protected split cannot be found, because too little of its audio can be read:\n    "
            + "\n    ".join(lines),
            remedy="make the audio readable (is its disk mounted?) and run the same command again, or add "
            f"--allow-unprotected to build nevertheless{links}",
        )


def protection_line(split: SplitProtection) -> str:
    """One sentence on one split, for people."""
    name = f"{split['dataset']}/{split['split']}"
    if not split["clips"]:
        return f"{name}: not compared, because no clip of it is part of the build"
    reasons = ", ".join(f"{count:,} {error}" for error, count in split["not_compared"].items())
    counts = (
        f"leaks by sound were checked against {split['compared']:,} of {quantity(split['clips'], 'clip')} of {name}"
    )
    return f"{counts} ({reasons})" if reasons else counts
