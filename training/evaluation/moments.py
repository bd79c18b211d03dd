"""Moment retrieval: where in a recording is what a caption describes?

A query is a caption with times, as TACOS has them, or a table of one's own.  The proposals are windows of several
lengths of its own recording.
The model scores them, and of proposals that overlap much only the best stays.  The measures are those of moment
retrieval in video (Lei et al. 2021, arXiv 2107.09609): R1@0.5 and R1@0.7, the share of captions whose first
proposal has at least this intersection over union with a true interval, and mAP, the mean average precision over the
thresholds 0.5, 0.55, ... 0.95.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sharding.common.errors import InputError
from training.data.moments import Floats, Moment, moments_of
from training.data.sampling.mixture import select_rows
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import SideEncoder, encode_texts
from training.models.heads.base import Side
from training.objectives.pairs.tiled import score_all
from training.run.progress import StatusLine
from training.search.entries import Part, Windows, entries_of
from training.search.reading import BATCH, encode_parts

LENGTHS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of proposals; a hop is half a window
MOST_OVERLAP = 0.5  # intersection over union with a better proposal, above which a proposal is dropped
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def overlaps(intervals: Floats, others: Floats) -> Floats:
    """Intersection over union of intervals ``[n, 2]`` and ``[m, 2]``, ``[n, m]``."""
    begin = np.maximum(intervals[:, None, 0], others[None, :, 0])
    end = np.minimum(intervals[:, None, 1], others[None, :, 1])
    both = np.clip(end - begin, 0, None)
    lengths = (intervals[:, 1] - intervals[:, 0])[:, None] + (others[:, 1] - others[:, 0])[None]
    return np.asarray(both / np.maximum(lengths - both, 1e-12))


def best_first(proposals: Floats, scores: Floats) -> list[int]:
    """The proposals ``[n, 2]`` that stay, best first: none overlaps a better one by more than ``MOST_OVERLAP``."""
    shared = overlaps(proposals, proposals)
    kept: list[int] = []
    for row in np.lexsort((np.arange(len(scores)), -scores)).tolist():
        if all(shared[row, other] <= MOST_OVERLAP for other in kept):
            kept.append(row)
    return kept


def average_precision(shared: Floats, threshold: float) -> float:
    """Average precision of ranked proposals: ``shared [proposals, intervals]`` is their overlap with true intervals.

    A proposal is right if it overlaps an interval by at least ``threshold`` that no better proposal has found.
    """
    open_intervals = list(range(shared.shape[1]))
    right, total = 0, 0.0
    for rank, row in enumerate(shared, 1):
        hits = [interval for interval in open_intervals if row[interval] >= threshold]
        if hits:
            open_intervals.remove(max(hits, key=lambda interval: row[interval]))
            right += 1
            total += right / rank
    return total / shared.shape[1]


def measure(moment: Moment, proposals: Floats, scores: Floats) -> dict[str, float]:
    """The measures of one caption; ``chance_`` is the expected R1 of a proposal that is drawn at random."""
    shared = overlaps(proposals, moment.intervals)
    ranked = shared[best_first(proposals, scores)]
    best = shared.max(axis=1)
    figures = {f"R1@{least}": float(ranked[0].max() >= least) for least in (0.5, 0.7)}
    figures["mAP"] = float(np.mean([average_precision(ranked, threshold) for threshold in THRESHOLDS]))
    figures |= {f"chance_R1@{least}": float(np.mean(best >= least)) for least in (0.5, 0.7)}
    return figures | {"reachable_R1@0.7": float(best.max() >= 0.7)}


def retrieve_moments(encoder: SideEncoder, manifest: Any, split: str) -> dict[str, Any]:
    """Moment retrieval on the captions with times of a split.

    Returns:
        ``split``, ``clips``, ``captions``, and the mean of each measure: ``R1@0.5``, ``R1@0.7``, ``mAP``, what chance
        gives, and ``reachable_R1@0.7``: the share of captions that any proposal could answer.

    Raises:
        InputError: the split has no captions with times.
    """
    table = manifest.table.filter(pa.array(select_rows(manifest.table, split)))
    moments = moments_of(table, encoder.settings)
    if not moments:
        remedy = "TACOS has them (--tacos DIR); in a table of your own, onset and offset are times (README)"
        raise InputError("the split has no captions with times", value=split, remedy=remedy)
    by_clip: dict[str, list[Moment]] = {}
    for moment in moments:
        by_clip.setdefault(moment.clip, []).append(moment)
    figures = []
    for clip, proposals, sounds in _proposals(encoder, manifest, table, sorted(by_clip)):
        texts = encode_texts(encoder, [moment.text for moment in by_clip[clip]], LocalGroup(), BATCH)
        device = next(encoder.model.parameters()).device
        on_device = (tuple(tensor.to(device) for tensor in side) for side in (texts, sounds))
        scores = score_all(encoder.head, *on_device).double().cpu().numpy()
        figures += [measure(moment, proposals, row) for moment, row in zip(by_clip[clip], scores, strict=True)]
    means = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
    return {"split": split, "clips": len(by_clip), "captions": len(moments), **means}


def _proposals(
    encoder: SideEncoder, manifest: Any, table: pa.Table, clips: Sequence[str]
) -> Iterator[tuple[str, Floats, Side]]:
    """For each clip in turn: its name, its proposals ``[n, 2]`` in seconds, and their audio sides."""
    wanted = table.filter(pa.array(np.isin(table["clip_id"].to_numpy(zero_copy_only=False), list(clips))))
    longest = encoder.audio_input.max_s
    lengths = [length for length in LENGTHS_S if length < longest] + [longest]
    tables = [entries_of(wanted, {}, Windows(length, length / 2)) for length in lengths]
    entries = _once(pa.concat_tables(tables))
    order_of = np.argsort(entries["clip_id"].to_numpy(zero_copy_only=False), kind="stable")
    entries = entries.take(pa.array(order_of)).combine_chunks()
    names = entries["clip_id"].to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    parts = [Part(str(names[begin]), begin, end) for begin, end in itertools.pairwise(bounds)]
    places = np.column_stack([entries["start_s"].to_numpy(), entries["end_s"].to_numpy()])
    line = StatusLine("windows of recordings", len(entries))
    for part, sounds in encode_parts(encoder, manifest, entries, parts):
        line.update(part.end)
        yield part.name, places[part.begin : part.end], sounds


def _once(entries: pa.Table) -> pa.Table:
    """Entries without repetitions: several lengths of windows give the whole of a short sample."""
    places = zip(*(entries[name].to_pylist() for name in ("key", "start_s", "end_s")), strict=True)
    first = {place: row for row, place in reversed(list(enumerate(places)))}
    return entries.take(pa.array(sorted(first.values()), pa.int64()))
