"""Candidate pairs from fingerprints: a sort-merge join of codes, voted by (pair, offset).

No pair is compared with any other: equal codes are brought together by sorting, so the cost grows with the
number of codes and of real coincidences, not with the square of the number of clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sharding.fingerprint import INFORMATIVE

POSTING = np.dtype([("code", "<u4"), ("clip", "<u4"), ("hop", "<u4")])
CANDIDATE = np.dtype([("a", "<u4"), ("b", "<u4"), ("offset", "<i4"), ("votes", "<u4")])


@dataclass(frozen=True)
class JoinSettings:
    """Bounds of the join.

    A code that more than ``common`` clips hold is a common element (a jingle, a library effect): its clips
    are not all paired with each other but with ``hubs`` of them, the protected ones first.
    """

    common: int = 48
    hubs: int = 8
    repeats: int = 4  # a code inside one clip: a loop does not vote more often than this
    votes: int = 3  # equal codes at one offset that make a candidate
    offsets: int = 6  # best offsets of a pair that are kept


def postings(fingerprints: Iterable[pa.Table], order: dict[str, int]) -> np.ndarray:
    """All informative (code, clip number, hop) of the clips that ``order`` numbers."""
    parts = []
    for table in fingerprints:
        for clip_id, codes, flags in zip(
            table["clip_id"].to_pylist(), table["codes"].to_pylist(), table["flags"].to_pylist(), strict=True
        ):
            if clip_id not in order:
                continue
            hops = np.flatnonzero(np.frombuffer(flags, np.uint8) & INFORMATIVE)
            part = np.empty(len(hops), POSTING)
            part["code"] = np.frombuffer(codes, "<u4")[hops]
            part["clip"], part["hop"] = order[clip_id], hops
            parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0, POSTING)


def join(rows: np.ndarray, protected: np.ndarray, settings: JoinSettings) -> np.ndarray:
    """CANDIDATE rows of postings; ``protected`` is a boolean per clip number."""
    rows = np.sort(rows, order=["code", "clip", "hop"])
    hits = []
    edges = np.flatnonzero(np.diff(rows["code"].astype(np.int64), prepend=-1, append=-1))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if last - first > 1:
            hits.append(_pairs(rows[first:last], protected, settings))
    return vote(np.concatenate(hits) if hits else np.empty((0, 3), np.int64), settings)


def _pairs(run: np.ndarray, protected: np.ndarray, settings: JoinSettings) -> np.ndarray:
    clips, starts = np.unique(run["clip"], return_index=True)
    rank = np.arange(len(run)) - np.repeat(starts, np.diff(np.append(starts, len(run))))
    run = run[rank < settings.repeats]
    hub = np.ones(len(run), bool)
    if len(clips) > settings.common:
        chosen = clips[np.lexsort((clips, ~protected[clips]))][: settings.hubs]
        hub = np.isin(run["clip"], chosen)
    i, j = np.meshgrid(np.flatnonzero(hub), np.arange(len(run)), indexing="ij")
    i, j = i.ravel(), j.ravel()
    a, b = run["clip"][i].astype(np.int64), run["clip"][j].astype(np.int64)
    offset = run["hop"][i].astype(np.int64) - run["hop"][j].astype(np.int64)
    keep = (a < b) | ((a > b) & ~hub[j])
    a, b, offset = a[keep], b[keep], offset[keep]
    swap = a > b
    return np.stack([np.where(swap, b, a), np.where(swap, a, b), np.where(swap, -offset, offset)], axis=1)


def vote(hits: np.ndarray, settings: JoinSettings) -> np.ndarray:
    """Count hits (a, b, offset) at each offset and its neighbours; keep a pair's best offsets."""
    if not len(hits):
        return np.empty(0, CANDIDATE)
    keys, counts = np.unique(hits, axis=0, return_counts=True)
    same_next = np.zeros(len(keys), bool)
    same_next[:-1] = (np.diff(keys, axis=0) == [0, 0, 1]).all(axis=1)
    votes = counts.copy()
    votes[:-1] += np.where(same_next[:-1], counts[1:], 0)
    votes[1:] += np.where(same_next[:-1], counts[:-1], 0)
    keep = votes >= settings.votes
    keys, votes = keys[keep], votes[keep]
    order = np.lexsort((keys[:, 2], -votes, keys[:, 1], keys[:, 0]))
    keys, votes = keys[order], votes[order]
    new = np.ones(len(keys), bool)
    new[1:] = (keys[1:, :2] != keys[:-1, :2]).any(axis=1)
    starts = np.flatnonzero(new)
    rank = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    keep = rank < settings.offsets
    found = np.empty(int(keep.sum()), CANDIDATE)
    found["a"], found["b"], found["offset"] = keys[keep].T
    found["votes"] = votes[keep]
    return found
