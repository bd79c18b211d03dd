"""Samples of builds in object stores, kept in a bounded folder of this machine (see ``sharding.common.storage.cache``).

Samples are named by their SHA-256, so builds that share a sample share its copy, and every sample that is read from
the folder is compared with its checksum.  Of a build that is larger than the cache, the same share of the samples is
kept in every epoch, chosen by their names.  To keep what was used last would keep nothing for long: an epoch uses every
sample once, and the one that was used longest ago is the one that is used next.  Samples of other builds make room.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sharding.common.storage.cache import Cache
from sharding.shards.checksum import is_changed

PARTS = 16  # folders, by the first digit of the name; each has the same share of the size
FULL = 0.9  # how far a build may fill the cache: parts are not equally full
LOOK_AFTER = 0.05  # share of a part that is written before it is measured again: other processes write there too


@dataclass
class SampleCache:
    """The samples of one build that this machine keeps.

    Attributes:
        folder: where they lie.
        limit: bytes that all samples of the folder may take.
        build_bytes: bytes of all samples of the build.
    """

    folder: Path
    limit: int
    build_bytes: int
    _written: dict[str, int] = field(default_factory=dict)  # bytes by part, since it was measured
    _off: bool = False

    @staticmethod
    def of_environment(build_bytes: int) -> SampleCache:
        """The cache that the environment names, for a build with ``build_bytes`` bytes of sound."""
        cache = Cache.of_environment()
        return SampleCache(cache.folder / "samples", cache.bytes // 2, build_bytes)

    def keeps(self, sha256: str) -> bool:
        """Whether a sample of that SHA-256 is among those that are kept."""
        if self._off or len(sha256) != 64:
            return False
        return int(sha256[1:9], 16) / 16**8 < FULL * self.limit / max(self.build_bytes, 1)

    def get(self, sha256: str, xxh3: int | None) -> bytes | None:
        """The sample's bytes; None if they are not here, or were damaged here (they are then removed)."""
        if not self.keeps(sha256):
            return None
        path = self._path(sha256)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if is_changed(data, xxh3, sha256):
            path.unlink(missing_ok=True)
            return None
        return data

    def put(self, sha256: str, xxh3: int | None, data: bytes) -> None:
        """Keep a sample, if it is one that is kept and is intact.  A disk that fails ends the use of the cache."""
        if not self.keeps(sha256) or is_changed(data, xxh3, sha256):
            return
        path = self._path(sha256)
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(path)
            self._make_room(path.parent, len(data))
        except OSError as error:
            self._off = True
            print(f"samples are not kept in {self.folder} any more: {error}", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[0] / sha256[1:]

    def _make_room(self, part: Path, written: int) -> None:
        """Now and then, remove the samples of a part that were not used for the longest, until it has its share."""
        share = self.limit // PARTS
        self._written[part.name] = self._written.get(part.name, share) + written
        if self._written[part.name] < LOOK_AFTER * share:
            return
        self._written[part.name] = 0
        found = []
        for entry in os.scandir(part):
            with contextlib.suppress(OSError):
                about = entry.stat()
                found.append((about.st_mtime, about.st_size, entry.path))
        excess = sum(size for _, size, _ in found) - share
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size
