"""Captions of written clips, with those that they take over from their duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.grouping import relations
from sharding.fates.trimming import captions_within, shift_captions
from sharding.rows import Caption, column


class MergedCaptions:
    """The captions of written clips: their own, then those of their duplicates of the same interval.

    Two files of one interval need not begin at the same moment.  So the times of a duplicate's captions are moved to
    where its sound lies in the written clip, and a caption of a part that the written clip lacks is left out.
    """

    def __init__(self, catalogue: pa.Table, facts: pa.Table, fates: pa.Table, matches: pa.Table) -> None:
        self._captions = catalogue["captions"].combine_chunks()
        self._row = {clip_id: row for row, clip_id in enumerate(column(catalogue, "clip_id", str))}
        self._duplicates: dict[str, list[str]] = defaultdict(list)  # of each written clip, sorted
        duplicates = fates.filter(pc.equal(fates["reason"], "same_interval")).sort_by("clip_id")
        names = column(duplicates, "clip_id", str)
        for clip_id, written in zip(names, column(duplicates, "other", str), strict=True):
            self._duplicates[written].append(clip_id)
        named = pa.array(names, pa.string())
        of_duplicates = pc.or_(pc.is_in(matches["a"], named), pc.is_in(matches["b"], named))
        self._relations = {(r.a, r.b): r for r in relations(matches.filter(of_duplicates))}
        kept = facts.filter(pc.is_in(facts["clip_id"], pa.array(self._duplicates, pa.string())))
        self._durations = dict(zip(column(kept, "clip_id", str), column(kept, "duration_s", float), strict=True))

    def of(self, clips: Sequence[str]) -> list[list[Caption]]:
        """The captions of each of ``clips``; a caption of a duplicate names that clip as its ``source``."""
        wanted = [name for clip_id in clips for name in (clip_id, *self._duplicates.get(clip_id, ()))]
        published = iter(self._captions.take(pa.array([self._row[name] for name in wanted], pa.int64())).to_pylist())
        merged = []
        for clip_id in clips:
            captions: list[Caption] = list(next(published) or [])
            for duplicate in self._duplicates.get(clip_id, ()):
                theirs: list[Caption] = next(published) or []
                taken: list[Caption] = [{**caption, "source": caption["source"] or duplicate} for caption in theirs]
                relation = self._relations[min(clip_id, duplicate), max(clip_id, duplicate)]
                moved = shift_captions(taken, relation.time_in(clip_id))
                captions += captions_within(moved, 0.0, self._durations[clip_id])
            merged.append(captions)
        return merged
