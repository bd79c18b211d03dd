"""The probe reads and decodes every clip of a batch once, and keeps all that later stages need of it.

Below ``OUT/.build`` a batch becomes ``packs/<batch>.pack`` (the encoded windows, one after the other in catalogue
order; several packs where it was probed in steps), ``fingerprints/<batch>.parquet`` and, last,
``facts/<batch>.parquet``: a batch is finished once its facts exist.  But for the names of packs, the bytes of these
files depend on the clips and the settings alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from sharding.common.storage import Storage
from sharding.layout import facts_name, fingerprints_name, pack_name
from sharding.probe.child import Decoder
from sharding.probe.clip import ProbedClip, ProbeSettings
from sharding.probe.messages import Finished, Task
from sharding.probe.steps import Steps
from sharding.probe.stored import store_clips
from sharding.rows import column, rows


class Batch(NamedTuple):
    """Clips that are probed together.

    Attributes:
        name: of their files, without suffix.
        clips: their rows of CATALOGUE.
        in_steps: whether the work is kept in steps (see ``steps``).
    """

    name: str
    clips: pa.Table
    in_steps: bool = False


@dataclass(frozen=True)
class Probed:
    """The result of a batch, in numbers.

    Attributes:
        clips: how many it has.
        failures: how many of them failed, by the class of the error.
        seconds: the seconds of sound that were decoded.
    """

    clips: int
    failures: dict[str, int]
    seconds: float


class Prober:
    """Probes the batches of a build, in any worker.  The process of its decoder is kept from batch to batch.

    Args:
        roots: each dataset's folder.
        build: the storage of ``OUT/.build``.
        settings: what to make of recordings.
    """

    def __init__(self, roots: Mapping[str, Storage], build: Storage, settings: ProbeSettings) -> None:
        self._roots, self._build, self._settings = dict(roots), build, settings
        self._decoder = Decoder()

    def __reduce__(self) -> tuple[type[Prober], tuple[dict[str, Storage], Storage, ProbeSettings]]:
        return Prober, (self._roots, self._build, self._settings)  # each worker has a decoder of its own

    def __call__(self, batch: Batch) -> Probed:
        """Probe the clips of a batch, and write its packs, fingerprints and facts.

        Raises:
            OSError: storage failed, and the batch can be tried again.  The content of a clip never raises it.
        """
        name, clips, in_steps = batch
        probed = self._probe_in_steps(name, clips) if in_steps else self._probe(clips, f"{name}.pack")
        store_clips(self._build, facts_name(name), fingerprints_name(name), probed)
        if in_steps:
            Steps(self._build, name).forget()
        facts = [clip.facts for clip in probed]
        durations = [each.duration_s or 0.0 for each in facts if each.error is None]
        failures = Counter(each.error for each in facts if each.error is not None)
        return Probed(clips=len(facts), failures=dict(failures), seconds=sum(durations))

    def _probe(self, clips: pa.Table, pack: str) -> list[ProbedClip]:
        """Probe clips, whose sound goes into a pack of that name."""
        found, tasks = _without_audio(clips)
        with self._build.writer(pack_name(pack)) as file:
            for message in self._decoder.examine(tasks, self._roots, self._settings, file, pack):
                if isinstance(message, Finished):
                    found[message.clip.facts.clip_id] = message.clip
        return [found[clip_id] for clip_id in column(clips, "clip_id", str)]

    def _probe_in_steps(self, name: str, clips: pa.Table) -> list[ProbedClip]:
        """The same in steps, of which each is twice as long as the one before; goes on after those that are kept."""
        steps, length = Steps(self._build, name), 1
        probed = steps.load()
        while (start := len(probed)) < clips.num_rows:
            some = clips.slice(start, length)
            found = self._probe(some, f"{name}-{start:02d}-{start + some.num_rows:02d}.pack")
            if start + len(found) < clips.num_rows:
                steps.keep(start, found)
            probed += found
            length *= 2
        return probed


class _Listed(NamedTuple):
    """The columns of the catalogue that say where a clip's audio is."""

    clip_id: str
    dataset: str
    path: str | None
    problem: str | None


def _without_audio(clips: pa.Table) -> tuple[dict[str, ProbedClip], list[Task]]:
    """Clips about which the catalogue says that there is no audio to read, by id; and tasks for all others."""
    known: dict[str, ProbedClip] = {}
    tasks = []
    for clip in rows(clips, _Listed):
        if clip.problem is not None or clip.path is None:
            known[clip.clip_id] = ProbedClip.failed(clip.clip_id, clip.problem or "missing")
        else:
            tasks.append(Task(clip.clip_id, clip.dataset, clip.path))
    return known, tasks
