"""Scoring a whole split with a model, part by part, into a folder of scores.

Clips are encoded first, in blocks that are kept in the folder until the scores are finished, so that a killed process
does not encode them again.  Captions are encoded with the part that needs them.  So memory holds the side of the clips,
one part of scores, and the side of its captions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save

from sharding.common.storage import Storage
from training.data.sampling.draws import DrawnSamples
from training.data.sampling.order import SequentialOrder
from training.engine.distributed import Group, LocalGroup
from training.evaluation.counting import comparable
from training.evaluation.encoding import SideEncoder, encode_clips, encode_texts, join, side_encoder
from training.evaluation.figures import Questions
from training.evaluation.run import scored_side
from training.evaluation.scores.files import ScoreWriter
from training.evaluation.split import captioned, clips_of, read_split
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.objectives.pairs.tiled import score_all
from training.run.progress import StatusLine
from training.search.vectors import fingerprint

BLOCK = 256  # batches of clips that are encoded and kept together
KEPT = "clips"  # folder of encoded clips, gone once the scores are finished


@dataclass(frozen=True)
class ScoringSettings:
    """What is scored.

    Attributes:
        model: what the scores call the model.
        split: dataset/split.
        batch_size: clips, or captions, that are encoded at once.
        relevance: a relevance table whose queries are scored too; None: none.
        queries: what is scored instead of the captions, which clips then need not have; None: the captions.
    """

    model: str
    split: str
    batch_size: int = 32
    relevance: Mapping[str, Mapping[str, float]] | None = None
    queries: Sequence[str] | None = None


def write_scores(
    retriever: Retriever, manifest: Any, settings: ScoringSettings, out: str, group: Group | None = None
) -> dict[str, Any]:
    """Score every caption of a split against every clip of it; a killed run continues, with the same result.

    Args:
        retriever: the model.
        manifest: the manifest of the build.
        settings: what is scored.
        out: the folder to write, local or in an object store; every rank must see it.
        group: the ranks, which share the work; None: this process is alone.

    Raises:
        InputError: ``out`` holds other scores, or a clip cannot be read.
    """
    group = group or LocalGroup()
    encoder = side_encoder(retriever.model, retriever.recipe.data)
    table = manifest.table if settings.queries is None else captioned(manifest.table)
    order = SequentialOrder(table, settings.split, encoder.settings, settings.batch_size)
    if settings.queries is None:
        split = read_split(table, settings.split, order, encoder.settings)
        questions = Questions.of(split, settings.relevance, encoder.settings)
    else:
        clips = clips_of(order)
        questions = Questions.of_queries(settings.split, clips, settings.queries, encoder.settings)
    storage = Storage(out)
    identity = {"model": settings.model, "fingerprint": fingerprint(retriever), "build": manifest.dataset["plan"]}
    writer = ScoreWriter(storage, questions, identity, settings.batch_size)
    begun = group.gather_objects(writer.begin() if group.rank == 0 else None, "state of the scores")[0]
    result = {"split": settings.split, "clips": len(questions.clips), "queries": len(questions.read), "out": out}
    if not begun:
        return result | {"parts": writer.parts, "written": 0}
    sounds = _clips(encoder, manifest, order, storage, group)
    missing = writer.missing()
    group.barrier("parts of the scores")
    line = StatusLine("parts of the scores", writer.parts, writer.parts - len(missing), quiet=group.rank != 0)
    for turn, part in enumerate(missing[group.rank :: group.size]):
        texts = encode_texts(encoder, questions.read[writer.rows_of(part)], LocalGroup(), settings.batch_size)
        scores = score_all(encoder.head, scored_side(encoder.head, texts), sounds)
        writer.write(part, comparable(scores.float().numpy()))
        line.update(min(writer.parts, writer.parts - len(missing) + (turn + 1) * group.size))
    group.barrier("end of the scores")
    if group.rank == 0:
        writer.finish()
        storage.remove_tree(KEPT)
    return result | {"parts": writer.parts, "written": len(missing)}


class _Steps:
    """An order that consists of some batches of another one."""

    def __init__(self, order: SequentialOrder, first: int, count: int) -> None:
        self._order, self._first = order, first
        self.batch_size, self.steps_per_epoch = order.batch_size, count
        begin = first * order.batch_size
        self.draws_per_epoch = min(order.draws_per_epoch, begin + count * order.batch_size) - begin

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        return self._order.batch(epoch, self._first + step, rank, world)


def _report(line: StatusLine, before: int, done: int, _: int) -> None:
    line.update(before + done)


def _clips(encoder: SideEncoder, manifest: Any, order: SequentialOrder, storage: Storage, group: Group) -> Side:
    """The sides of all clips, ready to be scored; blocks that are kept in the folder are not encoded again."""
    kept = set(storage.list(KEPT))
    starts = range(0, order.steps_per_epoch, BLOCK)
    names = {start: f"{KEPT}/{start:06d}.safetensors" for start in starts}
    group.barrier("blocks of clips")
    done = sum(min(BLOCK, order.steps_per_epoch - start) for start in starts if names[start] in kept)
    line = StatusLine("batches of clips", order.steps_per_epoch, done, quiet=group.rank != 0)
    sides = []
    for start in starts:
        count = min(BLOCK, order.steps_per_epoch - start)
        if names[start] in kept:
            found = load(storage.read(names[start]))
            side = tuple(found[f"{number:03d}"] for number in range(len(found)))
        else:
            some: Any = _Steps(order, start, count)
            side = encode_clips(encoder, manifest, some, group, functools.partial(_report, line, done))
            done += count
            if group.rank == 0 and len(starts) > 1:
                storage.write(names[start], save({f"{n:03d}": tensor.contiguous() for n, tensor in enumerate(side)}))
        sides.append(side)
    return scored_side(encoder.head, join(sides))
