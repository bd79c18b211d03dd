"""Leaks of evaluation sets into a build: which of their clips its training clips hold, by sound and by id.

A pure function of tables.  `sharding.build.benchmark_leaks` compares the clips of evaluation sets that are not in the
build.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple, TypedDict

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.dedup.grouping import Relation, relations
from sharding.sources import DATASETS
from sharding.sources.protected import is_protected, parse_protect

# What the evidence is, the strongest first, and the sentence that users read.
EVIDENCE = {
    "sound": "A training clip has sound in common with it; the waveforms prove it.",
    "id": "The published ids and intervals say that a training clip overlaps it.",
    "source": "A training clip comes from the same recording, from a part that is not known.",
    "undecided": "A training clip resembles it, and neither sameness nor difference could be proved.",
}


_CUT_AWAY = {"sound", "id"}  # evidence that says where the sound is, so that trimming has cut it


class Held(NamedTuple):
    """A clip of an evaluation set that a training clip holds, with its strongest evidence.

    Attributes:
        clip: the clip of the evaluation set.
        evidence: a key of ``EVIDENCE``.
        training_clip: the written clip, the first one by id where there are several with such evidence.
        overlap_s: verified seconds in common; 0 where only ids speak.
    """

    clip: str
    evidence: str
    training_clip: str
    overlap_s: float


class Benchmark(TypedDict):
    """How much of one evaluation split the training clips of a build hold."""

    name: str  # dataset/split
    clips: int
    compared: int  # clips whose sound could be decoded, and was compared
    held: dict[str, int]  # clips by their strongest evidence


def benchmark_splits(
    catalogue: pa.Table,
    inside: Collection[str],
    outside: Collection[str],
    protect: Collection[tuple[str, str]],
) -> list[tuple[str, str]]:
    """The (dataset, split) pairs of evaluation sets.

    Args:
        catalogue: CATALOGUE.
        inside: datasets of the build, of which the protected splits count.
        outside: other datasets.  Of a published one, the splits count that builds protect by default; of any other, and
            where none is protected, every split.
        protect: the protected splits of the build.

    Raises:
        InputError: a dataset of the build has no protected split.
    """
    pairs = sorted(set(zip(catalogue["dataset"].to_pylist(), catalogue["split"].to_pylist(), strict=True)))
    found = []
    for name in inside:
        chosen = [pair for pair in pairs if pair[0] == name and is_protected(*pair, protect)]
        if not chosen:
            remedy = "name a dataset with a split that the build protects"
            raise InputError("every split of the dataset is training data", value=name, remedy=remedy)
        found += chosen
    usual = parse_protect()
    for name in outside:
        splits = [pair for pair in pairs if pair[0] == name]
        chosen = [pair for pair in splits if is_protected(*pair, usual)] if name in DATASETS else []
        found += chosen or splits
    return found


def held_clips(
    catalogue: pa.Table,
    fates: pa.Table,
    matches: pa.Table,
    benchmarks: Collection[tuple[str, str]],
    protect: Collection[tuple[str, str]],
) -> list[Held]:
    """The clips of evaluation splits that training clips of a build hold, sorted by clip.

    From a trimmed clip, the build has cut all sound of its own protected clips, so it holds none of these.  Of other
    evaluation sets it counts as a whole.

    Args:
        catalogue: CATALOGUE of the build and of the evaluation sets.
        fates: FATES of the build.
        matches: MATCHES of all of these clips.
        benchmarks: the evaluation splits, (dataset, split).
        protect: splits of the build that are no training data.
    """
    splits = dict(
        zip(
            catalogue["clip_id"].to_pylist(),
            zip(catalogue["dataset"].to_pylist(), catalogue["split"].to_pylist(), strict=True),
            strict=True,
        )
    )
    evaluated = {clip for clip, split in splits.items() if split in set(benchmarks)}
    holders = _holders(fates, splits, benchmarks, protect)
    known = {frozenset((relation.a, relation.b)): _evidence(relation) for relation in relations(matches)}
    clean = _clean_of(fates, splits, protect)
    best: dict[str, Held] = {}
    for relation in relations(matches):
        for clip, other in ((relation.a, relation.b), (relation.b, relation.a)):
            evidence = _evidence(relation)
            if clip not in evaluated or other not in holders or evidence is None:
                continue
            if clean(holders[other], clip) and {evidence, known.get(frozenset((holders[other], clip)))} <= _CUT_AWAY:
                continue
            found = Held(clip, evidence, holders[other], relation.overlap_s if evidence == "sound" else 0.0)
            if clip not in best or _strength(found) < _strength(best[clip]):
                best[clip] = found
    return [best[clip] for clip in sorted(best)]


def count_benchmarks(
    catalogue: pa.Table, facts: pa.Table, benchmarks: Collection[tuple[str, str]], held: Collection[Held]
) -> list[Benchmark]:
    """The row of each evaluation split, in the order of ``benchmarks``.

    Args:
        catalogue: CATALOGUE of the evaluation sets, at least.
        facts: FACTS of them, at least.
        benchmarks: the evaluation splits, (dataset, split).
        held: from `held_clips`.
    """
    errors = dict(zip(facts["clip_id"].to_pylist(), facts["error"].to_pylist(), strict=True))
    evidence = {each.clip: each.evidence for each in held}
    rows = []
    for dataset, split in benchmarks:
        clips = [
            clip
            for clip, name, part in zip(
                *(catalogue[column].to_pylist() for column in ("clip_id", "dataset", "split")), strict=True
            )
            if (name, part) == (dataset, split)
        ]
        counts = Counter(evidence[clip] for clip in clips if clip in evidence)
        compared = sum(clip in errors and errors[clip] is None for clip in clips)
        held_by = {name: counts[name] for name in EVIDENCE}
        rows.append(Benchmark(name=f"{dataset}/{split}", clips=len(clips), compared=compared, held=held_by))
    return rows


def _holders(
    fates: pa.Table,
    splits: dict[str, tuple[str, str]],
    benchmarks: Collection[tuple[str, str]],
    protect: Collection[tuple[str, str]],
) -> dict[str, str]:
    """The written training clip that holds the sound of each clip: itself, or the one that it is a duplicate of."""
    no_training = set(benchmarks)
    written, duplicates = {}, {}
    for row in fates.select(["clip_id", "fate", "other"]).to_pylist():
        split = splits.get(row["clip_id"])
        if row["fate"] == "duplicate" and row["other"]:
            duplicates[row["clip_id"]] = row["other"]
        if row["fate"] == "written" and split and split not in no_training and not is_protected(*split, protect):
            written[row["clip_id"]] = row["clip_id"]
    return written | {clip: other for clip, other in duplicates.items() if other in written}


def _clean_of(
    fates: pa.Table, splits: dict[str, tuple[str, str]], protect: Collection[tuple[str, str]]
) -> Callable[[str, str], bool]:
    """Whether a written clip (first) was trimmed so that a protected clip of the build (second) is not in it."""
    reasons = dict(zip(fates["clip_id"].to_pylist(), fates["reason"].to_pylist(), strict=True))
    return lambda written, clip: (
        reasons[written] == "trimmed" and clip in reasons and is_protected(*splits[clip], protect)
    )


def _evidence(relation: Relation) -> str | None:
    """The strongest evidence that two clips share sound; None: there is none."""
    if relation.by_waveform == "same":
        return "sound"
    if relation.by_identity == "same" or (relation.by_identity == "undecided" and relation.identity_overlap_s > 0):
        return "id"
    if relation.by_identity == "undecided":
        return "source"
    return "undecided" if relation.by_waveform == "undecided" else None


def _strength(held: Held) -> tuple[int, float, str]:
    return list(EVIDENCE).index(held.evidence), -held.overlap_s, held.training_clip
