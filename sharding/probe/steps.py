"""The steps of a batch: what of it is kept before all of it is probed.

A batch under way is lost where the build is killed.  Were all batches whole, a build that is killed every few seconds
would never advance.  So the first batch of every start is probed in steps of one clip, two, four and so on.  What a
step found is kept below ``OUT/.build/steps/<batch>`` in files that are named by the places of its first clip and the
clip after its last one, and the sound in a pack of that name.  A finished batch has the same facts and fingerprints,
whether it was probed in steps or not, but for the names of its packs.
"""

from __future__ import annotations

import re

from sharding.common.storage import Storage
from sharding.layout import steps_name
from sharding.probe.clip import ProbedClip
from sharding.probe.stored import load_clips, store_clips

_FACTS = re.compile(r"(\d+)-(\d+)\.facts\.parquet")


class Steps:
    """The steps of one batch.

    Args:
        build: the storage of ``OUT/.build``.
        batch: the name of the batch.
    """

    def __init__(self, build: Storage, batch: str) -> None:
        self._build, self._folder = build, steps_name(batch)

    def load(self) -> list[ProbedClip]:
        """What earlier steps found about the first clips of the batch, in order."""
        names = (name.rpartition("/")[2] for name in self._build.list(self._folder))
        stops = dict(sorted((int(found[1]), int(found[2])) for name in names if (found := _FACTS.fullmatch(name))))
        clips: list[ProbedClip] = []
        while (stop := stops.get(len(clips))) is not None:
            clips += load_clips(self._build, *self._files(len(clips), stop))
        return clips

    def keep(self, start: int, clips: list[ProbedClip]) -> None:
        """Keep what a step found about the clips from the place ``start`` on."""
        store_clips(self._build, *self._files(start, start + len(clips)), clips)

    def forget(self) -> None:
        """Remove the steps; the batch is finished."""
        self._build.remove_tree(self._folder)

    def _files(self, start: int, stop: int) -> tuple[str, str]:
        name = f"{self._folder}/{start:02d}-{stop:02d}"
        return f"{name}.facts.parquet", f"{name}.fingerprints.parquet"
