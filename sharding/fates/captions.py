"""Captions that a written clip takes over from its duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.grouping import relations
from sharding.fates.trimming import later, told_in


class MergedCaptions:
    """The captions of written clips: their own, then those of clips that yielded to them as the same interval.

    Two files of one interval need not begin together: times are moved to where the sound lies in the clip that is
    written, and a caption of which nothing lies in it is left out.
    """

    def __init__(self, catalogue: pa.Table, facts: pa.Table, fates: pa.Table, matches: pa.Table) -> None:
        self._captions = catalogue["captions"].combine_chunks()
        self._row = {clip_id: row for row, clip_id in enumerate(catalogue["clip_id"].to_pylist())}
        self._taken: dict[str, list[str]] = defaultdict(list)  # from those that yielded, sorted
        yielding = fates.filter(pc.equal(fates["reason"], "same_interval")).sort_by("clip_id")
        for clip_id, keeper in zip(yielding["clip_id"].to_pylist(), yielding["other"].to_pylist(), strict=True):
            self._taken[keeper].append(clip_id)
        named = pa.array(yielding["clip_id"].to_pylist(), pa.string())
        of_them = pc.or_(pc.is_in(matches["a"], named), pc.is_in(matches["b"], named))
        self._relations = {(r.a, r.b): r for r in relations(matches.filter(of_them))}
        kept = facts.filter(pc.is_in(facts["clip_id"], pa.array(self._taken, pa.string())))
        self._durations = dict(zip(kept["clip_id"].to_pylist(), kept["duration_s"].to_pylist(), strict=True))

    def of(self, clips: Sequence[str]) -> list[list[dict]]:
        """The captions of each of ``clips``; one that was taken over names the clip that published it as ``source``."""
        wanted = [name for clip_id in clips for name in (clip_id, *self._taken.get(clip_id, ()))]
        published = iter(self._captions.take(pa.array([self._row[name] for name in wanted], pa.int64())).to_pylist())
        merged = []
        for clip_id in clips:
            captions = list(next(published) or [])
            for other in self._taken.get(clip_id, ()):
                taken = [{**caption, "source": caption["source"] or other} for caption in next(published) or []]
                moved = later(taken, self._relations[min(clip_id, other), max(clip_id, other)].time_in(clip_id))
                captions += told_in(moved, 0.0, self._durations[clip_id])
            merged.append(captions)
        return merged
