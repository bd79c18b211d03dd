"""Two small files of the work folder: the settings of the build that is here, and the marker of its catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from sharding.catalogue.table import Catalogue
from sharding.checks import conform
from sharding.common.storage import Storage
from sharding.layout import Work


def settings_bytes(settings: Mapping[str, Any]) -> bytes:
    """``BuildSettings.as_dict()`` as it is written."""
    return json.dumps(settings, indent=1, sort_keys=True).encode()


def differences(former: Any, now: Any, key: str = "") -> Iterator[str]:
    """One line for every setting that is not the same, e.g. ``plan.shard_bytes: 1000 there, 2000 now``.

    Of lists it says what only one of them has, because some have dozens of items.
    """
    if isinstance(former, dict) and isinstance(now, dict):
        for name in sorted(set(former) | set(now)):
            yield from differences(former.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif former != now:
        yield f"{key}: " + (_only(former, now) or f"{_shown(former)} there, {_shown(now)} now")


def _only(former: Any, now: Any) -> str:
    """The items that only one of two lists has; empty if these are not lists, or differ in their order only."""
    if not isinstance(former, list) or not isinstance(now, list):
        return ""
    gone, added = [[_item(x) for x in some if x not in others] for some, others in ((former, now), (now, former))]
    parts = [f"only {when}: {', '.join(items)}" for when, items in (("there", gone), ("now", added)) if items]
    return "; ".join(parts)


def _item(item: Any) -> str:
    return "/".join(map(str, item)) if isinstance(item, list) else str(item)


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


class _MarkerFile(TypedDict):
    datasets: list[str]
    generation: int
    notes: dict[str, list[str]]
    retry: str | None


@dataclass(frozen=True)
class Marker:
    """Says that the catalogue is complete; an interrupted build continues with it.

    Attributes:
        datasets: their names, sorted.
        reopenings: how often the build was reopened or added to; part of the names of the files that are added.
        notes: each dataset's remarks.
        retry: the error class for which the build was reopened, if it was.
    """

    datasets: Sequence[str]
    reopenings: int
    notes: Mapping[str, Sequence[str]]
    retry: str | None = None

    @staticmethod
    def of(catalogue: Catalogue, reopenings: int, retry: str | None = None) -> Marker:
        """The marker of a catalogue."""
        notes = {dataset: list(remarks) for dataset, remarks in catalogue.notes.items()}
        return Marker(sorted(notes), reopenings, notes, retry)

    @staticmethod
    def read(work: Storage) -> Marker:
        """The marker in a work folder."""
        plain = conform(work.read_json(Work.MARKER), _MarkerFile, work.name(Work.MARKER))
        return Marker(plain["datasets"], plain["generation"], plain["notes"], plain["retry"])

    def as_bytes(self) -> bytes:
        """The marker as it is written."""
        plain: _MarkerFile = {
            "datasets": list(self.datasets),
            "generation": self.reopenings,
            "notes": {name: list(remarks) for name, remarks in self.notes.items()},
            "retry": self.retry,
        }
        return json.dumps(plain).encode()
