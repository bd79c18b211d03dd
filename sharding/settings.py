"""Everything that determines the bytes of a build: settings, versions of packages, the kind of CPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharding.audio import AudioForm
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.dedup.fingerprint import METHOD
from sharding.fates.decide import FateSettings
from sharding.probe.clip import ProbeSettings
from sharding.shards.plan import PlanSettings
from sharding.sources.exclusion import exclusion_bytes


@dataclass(frozen=True)
class BuildSettings:
    """The settings that determine the bytes of a build.

    Attributes:
        roots: published dataset to folder.
        sources: name of a generic source to folder.
        exclude: files of excluded ids.
        follow_links: whether links that lead out of a dataset's folder are followed.
        probe, fates, plan: settings of the stages.
        split_seed: by which generic sources without splits are split at random; None: each is one split.
    """

    roots: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    fates: FateSettings = field(default_factory=FateSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    follow_links: bool = False
    split_seed: int | None = None

    def dataset_folders(self) -> dict[str, Storage]:
        """The folder of each dataset."""
        return {name: Storage(url, self.follow_links) for name, url in {**self.roots, **self.sources}.items()}

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain JSON; ``exclude`` also has the SHA-256 of each list, because its contents matter."""
        settings = dataclasses.asdict(self)
        if self.fates.leaks == FateSettings().leaks:
            del settings["fates"]["leaks"]  # as in builds from before this setting existed
        if not self.follow_links:
            del settings["follow_links"]
        if self.split_seed is None:
            del settings["split_seed"]
        settings["probe"]["fingerprint"] = METHOD
        lists = map(str, self.exclude)
        settings["exclude"] = {path: hashlib.sha256(exclusion_bytes(path)).hexdigest() for path in lists}
        return dict(json.loads(json.dumps(settings, default=sorted)))

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> BuildSettings:
        """The inverse of ``as_dict``; the exclusion lists are read from the same paths.

        Raises:
            InputError: they are no settings of this version of Earshot.
        """
        try:
            return BuildSettings._from_dict(plain)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"the file does not hold the settings of a build: {error!r}"
            raise InputError(what, remedy="build it anew with --new-plan") from error

    @staticmethod
    def _from_dict(plain: Mapping[str, Any]) -> BuildSettings:
        probe, fates = dict(plain["probe"]), dict(plain["fates"])
        if (method := probe.pop("fingerprint", 1)) != METHOD:
            what, remedy = "its fingerprints are those of another version of Earshot", "build it anew with --new-plan"
            raise InputError(what, value=method, remedy=remedy)
        probe["form"] = AudioForm(**probe["form"])
        for name in ("protect", "keep"):
            fates[name] = frozenset((dataset, split) for dataset, split in fates[name])
        return BuildSettings(
            dict(plain["roots"]),
            dict(plain["sources"]),
            tuple(plain["exclude"]),
            ProbeSettings(**probe),
            FateSettings(**fates),
            PlanSettings(**plain["plan"]),
            bool(plain.get("follow_links", False)),
            plain.get("split_seed"),
        )


def versions() -> dict[str, str]:
    """The versions of all packages on which the bytes of a build depend."""
    import av
    import numpy
    import pyarrow
    import soundfile
    import soxr

    return {
        "av": av.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "soundfile": soundfile.__version__,
        "soxr": soxr.__version__,
    }
