"""What a builder and its decoder's process say to each other, one pickled dataclass at a time."""

from __future__ import annotations

from dataclasses import dataclass

from sharding.common.storage import Storage
from sharding.probe.clip import ProbedClip, ProbeSettings


@dataclass(frozen=True, slots=True)
class Task:
    """A clip to probe: its id, the dataset below whose folder its file lies, and the path there."""

    clip_id: str
    dataset: str
    path: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """From the builder: probe these clips, in order.  The open pack's file descriptor follows.

    Attributes:
        tasks: the clips.
        roots: each dataset's folder.
        settings: what to make of recordings.
        pack: the name of the pack, for the facts.
        offset: the byte of the pack where the windows of the first clip begin.
    """

    tasks: tuple[Task, ...]
    roots: dict[str, Storage]
    settings: ProbeSettings
    pack: str
    offset: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From the decoder, first of all: it has started and can probe clips."""


@dataclass(frozen=True, slots=True)
class Started:
    """From the decoder: it begins to read the clip at ``index`` of its work, whose file has ``source_bytes``."""

    index: int
    source_bytes: int


@dataclass(frozen=True, slots=True)
class WriteBegan:
    """From the decoder: it begins to write to the pack.  Until ``WriteEnded`` no time counts against the clip."""


@dataclass(frozen=True, slots=True)
class WriteEnded:
    """From the decoder: the pack has taken what was written."""


@dataclass(frozen=True, slots=True)
class Finished:
    """About the clip at ``index``, which decoded or failed.  Nothing more is said of that clip."""

    index: int
    clip: ProbedClip


@dataclass(frozen=True, slots=True)
class StorageFailed:
    """From the decoder: storage failed, and no clip is to blame.  Nothing more is said of this assignment."""

    error: OSError


Message = Ready | Started | WriteBegan | WriteEnded | Finished | StorageFailed
