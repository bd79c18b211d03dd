"""From facts and fingerprints to evidence: which clips hold the same sound, where, and how surely.

A cascade; every step leaves rows of the MATCHES table:

``identity``      what ids and intervals say (given; passed through)
``source_bytes``  the files are equal byte for byte
``pcm``           the canonical samples are equal
``fingerprint``   codes coincide at this offset: a candidate, never more than ``undecided``
``waveform``      the verdict of ``sharding.dedup.waveform`` at its offset
``residual``      whether each clip explains all that the other one holds (``sharding.dedup.residual``): ``same`` or
                  ``different``; only of pairs of which one clip may be removed

One row per (pair, method, offset); of a pair's offsets, the best, or all (``MatchSettings.every_place``).  A
pair's outcome is that of its strongest row of ``source_bytes``, ``pcm`` or ``waveform``: ``same`` where any says
same, else ``undecided`` where any says so, else ``different``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.storage import Storage
from sharding.dedup.candidates import Spread, join
from sharding.dedup.comparing import Comparison, MatchSettings, Wave, held_sound, match_row, matches_table
from sharding.dedup.findings import Findings, digest
from sharding.dedup.fingerprint import HOP_S
from sharding.dedup.grouping import relations
from sharding.dedup.places import every_place, leaks
from sharding.dedup.residual import Explainer, removable_pairs
from sharding.dedup.spreading import QUIETLY, Begin, Spreader
from sharding.sources.protected import is_protected

_Candidate = tuple[str, str, list[tuple[float, int]]]  # a pair, and the offsets at which codes coincide, with votes


def find_matches(
    catalogue: pa.Table,
    facts: pa.Table,
    fingerprints: pa.Table | Iterable[pa.Table],
    wave: Wave,
    identity: pa.Table,
    settings: MatchSettings | None = None,
    spread: Spread = map,
    known: pa.Table | None = None,
    old: Collection[str] = (),
    begin: Begin = QUIETLY,
    kept: Storage | None = None,
) -> pa.Table:
    """All evidence about pairs of clips: MATCHES, sorted; independent of the order of rows in its inputs.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS of the clips that were probed.
        fingerprints: FINGERPRINTS, whole or in parts.
        wave: reads sound, at 8 kHz and at the rate of ``sharding.dedup.explanation``.
        identity: MATCHES rows from ids, passed through.
        settings: see MatchSettings.
        spread: ``spread(function, items)`` gives results in any order: ``map``, or a runner's ``map``.
        known: MATCHES of an earlier run over the clips of ``old``; taken over, so that only pairs with a
            clip that is not in ``old`` are sought.
        old: clip_ids that the earlier run compared with each other.
        begin: ``begin(what, total, unit)`` begins to show progress.
        kept: a folder where what is found is kept until the caller removes it, so that a killed run goes on.
    """
    settings = settings or MatchSettings()
    findings = Findings(kept, _digest(catalogue, facts, identity, settings, known, old)) if kept else Findings()
    spreader = Spreader(spread, begin, findings)
    parts = [fingerprints] if isinstance(fingerprints, pa.Table) else fingerprints
    good = facts.filter(pc.is_null(facts["error"])) if facts.num_rows else facts
    durations = dict(zip(good["clip_id"].to_pylist(), good["duration_s"].to_pylist(), strict=True))
    ids = sorted(durations)
    order = {clip_id: number for number, clip_id in enumerate(ids)}
    fresh = np.array([clip_id not in old for clip_id in ids], bool)
    told = {(row["a"], row["b"]) for row in identity.select(["a", "b"]).to_pylist()}
    rows = identity.to_pylist()
    if known is not None:
        rows += [row for row in known.to_pylist() if row["method"] != "identity" and _both_old(row, old)]
    compare = Comparison(wave, durations, settings)
    protected = _protected(catalogue, settings)
    rows += _equal_rows(good, compare, protected, old)
    settled = {(row["a"], row["b"]) for row in rows if row["method"] != "identity"}
    hops = int(sum(durations.values()) / HOP_S)
    preferred = np.array([clip_id in protected for clip_id in ids], bool)
    tables = spreader.tables("match (posting)", parts, len(ids))
    pairing = partial(spreader.parts, iter(("match (pairing)", "match (voting)")), settings.join.partitions)
    joined = partial(join, tables, order, preferred, fresh, settings.join, pairing, hops)
    candidates = findings.candidates(joined, hops)
    work: list[_Candidate] = [(a, b, offsets) for a, b, offsets in _by_pair(candidates, ids) if (a, b) not in settled]
    heard = settled | {(a, b) for a, b, _ in work}
    work += [(a, b, []) for a, b in sorted(told - heard) if a in durations and b in durations]
    rows += _compared(work, compare, spreader)
    if settings.every_place:
        rows += every_place(leaks(rows, protected, old), compare, spreader)
    removable = removable_pairs(relations(matches_table(rows)), durations, protected, settings.removal_share)
    rows += Explainer(wave, durations, settings.removal_share, settings.stretch_s).explain(removable, spreader)
    return matches_table(rows)


def _digest(
    catalogue: pa.Table,
    facts: pa.Table,
    identity: pa.Table,
    settings: MatchSettings,
    known: pa.Table | None,
    old: Collection[str],
) -> str:
    """A name for all that the evidence depends on.  The hash of a clip's samples stands for its sound."""
    evidence = ["a", "b", "method", "offset_s", "overlap_s", "score", "outcome"]
    tables = [
        catalogue.select(["clip_id", "dataset", "split"]),
        facts.select(["clip_id", "duration_s", "error", "source_sha256", "pcm_sha256"]),
        *(table.select(evidence) for table in (identity, known) if table is not None),
    ]
    plain = replace(settings, protect=frozenset(), join=replace(settings.join, scratch=None))
    return digest(tables, [repr(plain), repr(sorted(settings.protect)), *sorted(old)])


def _both_old(row: dict, old: Collection[str]) -> bool:
    return row["a"] in old and row["b"] in old


def _by_pair(candidates: np.ndarray, ids: list[str]) -> Iterator[_Candidate]:
    for (a, b), group in groupby(candidates.tolist(), key=lambda c: c[:2]):
        yield ids[a], ids[b], [(offset * HOP_S, votes) for _, _, offset, votes in group]


def _compared(work: list[_Candidate], compare: Comparison, spreader: Spreader) -> list[dict]:
    """The rows of all candidates."""
    progress = spreader.begin("match (comparing)", len(work), "pairs")
    found = spreader.each(progress, partial(_compare, compare=compare), work, lambda pair: compare.seconds(*pair))
    rows = [row for _, of_pair in found for row in of_pair]
    progress.finish()
    return rows


def _compare(work: list[_Candidate], compare: Comparison) -> list[list[dict]]:
    """The rows of each pair."""
    compare = replace(compare, wave=held_sound(compare))
    return [compare.at_offsets(a, b, offsets) if offsets else compare.anywhere(a, b) for a, b, offsets in work]


def _protected(catalogue: pa.Table, settings: MatchSettings) -> set[str]:
    columns = (catalogue[name].to_pylist() for name in ("clip_id", "dataset", "split"))
    return {
        clip_id
        for clip_id, dataset, split in zip(*columns, strict=True)
        if is_protected(dataset, split, settings.protect)
    }


def _equal_rows(facts: pa.Table, compare: Comparison, protected: Collection[str], old: Collection[str]) -> list[dict]:
    """Rows of clips whose bytes or samples are equal; silent clips equal nothing."""
    rows: list[dict] = []
    silent: dict[str, bool] = {}
    bounds = compare.settings.join
    for method, column in (("source_bytes", "source_sha256"), ("pcm", "pcm_sha256")):
        holders: dict[str, list[str]] = defaultdict(list)
        for clip_id, hashed in zip(facts["clip_id"].to_pylist(), facts[column].to_pylist(), strict=True):
            if hashed:
                holders[hashed].append(clip_id)
        for members in holders.values():
            members.sort(key=lambda clip_id: (clip_id not in protected, clip_id))
            first = members[0]
            if len(members) > 1 and first not in silent:
                silent[first] = compare.silent(first)
            if len(members) < 2 or silent[first]:
                continue
            representatives = members if len(members) <= bounds.common else members[: bounds.representatives]
            rows += [
                match_row(a, b, method, 0.0, compare.durations[a], 1.0, "same")
                for i, a in enumerate(representatives)
                for b in members[i + 1 :]
                if not (a in old and b in old)
            ]
    return rows
