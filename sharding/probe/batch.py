"""The probe reads and decodes every clip of a batch once, and keeps all that later stages need of it.

Below ``OUT/.build`` a batch becomes ``packs/<batch>.pack`` (the encoded windows, one after the other in catalogue
order), ``fingerprints/<batch>.parquet`` and, last, ``facts/<batch>.parquet``: a batch is finished once its facts exist.
The bytes of these files depend on the clips and the settings alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sharding.common.storage import Storage
from sharding.layout import facts_name, fingerprints_name, pack_name
from sharding.probe.child import Decoder
from sharding.probe.clip import ProbedClip, ProbeSettings
from sharding.probe.messages import Finished, Task
from sharding.rows import column, rows, to_table
from sharding.schema import FACTS, FINGERPRINTS


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

    def __call__(self, batch: tuple[str, pa.Table]) -> Probed:
        """Probe the clips of a batch, and write its pack, fingerprints and facts.

        Args:
            batch: the batch's name, a file name without suffix, and its clips: rows of the catalogue.

        Raises:
            OSError: storage failed, and the batch can be tried again.  The content of a clip never raises it.
        """
        name, clips = batch
        found, tasks = _without_audio(clips)
        pack = f"{name}.pack"
        with self._build.writer(pack_name(pack)) as file:
            for message in self._decoder.examine(tasks, self._roots, self._settings, file, pack):
                if isinstance(message, Finished):
                    found[message.clip.facts.clip_id] = message.clip
        probed = [found[clip_id] for clip_id in column(clips, "clip_id", str)]
        facts = [clip.facts for clip in probed]
        _write_fingerprints(self._build, fingerprints_name(name), probed)
        self._build.write_table(facts_name(name), to_table(facts, FACTS))
        durations = [each.duration_s or 0.0 for each in facts if each.error is None]
        failures = Counter(each.error for each in facts if each.error is not None)
        return Probed(clips=len(facts), failures=dict(failures), seconds=sum(durations))


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


def _write_fingerprints(build: Storage, path: str, clips: Sequence[ProbedClip]) -> None:
    """Write the FINGERPRINTS of clips that have one.

    The table goes straight to the file, without copies or statistics: the row of an 18-hour recording takes 27 MB.
    """
    found = [(clip.facts.clip_id, *clip.fingerprint) for clip in clips if clip.fingerprint is not None]
    columns = [pa.array([clip_id for clip_id, _, _ in found], pa.string())]
    columns += [_binary([codes for _, codes, _ in found]), _binary([flags for _, _, flags in found])]
    table = pa.Table.from_arrays(columns, schema=FINGERPRINTS)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with build.writer(path) as file, pq.ParquetWriter(file, FINGERPRINTS, **plain) as parquet:
        parquet.write_table(table)


def _binary(values: Sequence[bytes]) -> pa.LargeBinaryArray:
    """A column of these values; pyarrow's own conversion would copy them once more."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
