"""A decoder that decodes each batch of clips once, in its real process, and afterwards gives the same answers again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from sharding.common.storage import Storage
from sharding.probe.child import Decoder
from sharding.probe.clip import ProbeSettings
from sharding.probe.messages import Finished, Started, Task

_known: dict[str, tuple[list[Started | Finished], bytes]] = {}


class RememberingDecoder(Decoder):
    """Stands in for ``sharding.probe.batch.Decoder`` where thousands of builds read the same clips."""

    def examine(
        self, tasks: Sequence[Task], roots: Mapping[str, Storage], settings: ProbeSettings, file: BinaryIO, pack: str
    ) -> Iterator[Started | Finished]:
        key = repr((tuple(tasks), sorted(roots.items(), key=str), settings, pack))
        if key not in _known:
            messages = list(super().examine(tasks, roots, settings, file, pack))
            _known[key] = messages, Path(f"/proc/self/fd/{file.fileno()}").read_bytes()
            self.stop()
        else:
            os.pwrite(file.fileno(), _known[key][1], 0)
        yield from _known[key][0]
