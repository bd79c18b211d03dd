"""Writing the captions of a split in other words with a language model, resumably, beside the shards."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import torch
import xxhash

from sharding.common.runners import Runner
from sharding.common.storage import Storage
from training.curation import rewrites
from training.curation.annotators import answers, opened
from training.curation.parts import begin, carry_out, known_clips, order_of, part, part_counts
from training.curation.rewrites import PROMPT, REWRITES, sifted

TABLE = "rewrites.parquet"


@dataclass(frozen=True)
class Rewriting:
    """The captions to rewrite and the model: all that a worker needs.

    Attributes:
        shards: the build.
        split: dataset/split, or a dataset.
        model: a causal language model of transformers, by name or folder.
        out: the folder of the alternatives.
        prompt: what the model is asked, with ``{}`` where the caption stands.
        count: alternatives of each caption that are asked for: the most probable one, and others that are drawn.
        batch: clips whose captions are rewritten at once.
        tokens: the most tokens of an answer.
    """

    shards: str
    split: str
    model: str
    out: str
    prompt: str = PROMPT
    count: int = 1
    batch: int = 16
    tokens: int = 64


def rewrite(work: Rewriting, runner: Runner) -> dict[str, Any]:
    """Write alternatives of every caption of the split as REWRITES; a killed run continues.

    Labels are not rewritten, but counted, and a caption that a clip received from its duplicates too is written once.

    Raises:
        InputError: the folder holds something else, or the model cannot be loaded.
    """
    storage = Storage(work.out)
    identity = {key: value for key, value in asdict(work).items() if key not in ("shards", "out")}
    begin(storage, work.shards, identity, "alternatives")
    table, counts = carry_out(storage, _Rewrite(work), order_of(work), REWRITES, "rewrite", runner)
    asked = counts.pop("asked", 0)
    storage.write_table(TABLE, table)
    labels = sum(len(clip.labels) for clip in known_clips(work).values())
    found = {"captions": asked, "labels": labels, "kept": len(table), "removed": dict(counts)}
    return found | {"out": storage.name(TABLE)}


@dataclass(frozen=True)
class _Rewrite:
    work: Rewriting

    @property
    def gpus(self) -> int:
        """GPUs that a task takes where there are any: the model runs on one."""
        return 1

    def __call__(self, step: int) -> int:
        """Rewrite the captions of one batch of clips and write its part; returns its number."""
        work, storage = self.work, Storage(self.work.out)
        known = known_clips(work)
        pairs = [
            (clip, text)
            for clip in order_of(work).batch(0, step).clip_ids
            for text in dict.fromkeys(known[clip].captions)
            if rewrites.words(text)
        ]
        seed = xxhash.xxh32_intdigest(f"{work.model} {work.prompt} {step}".encode())
        written = _alternatives(work, [text for _, text in pairs], seed)
        spelled = {clip: {tuple(rewrites.words(text)) for text in known[clip].captions} for clip in dict(pairs)}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows, counts = [], Counter(asked=len(pairs))
        for (clip, text), some in zip(pairs, written, strict=True):
            kept, reasons = sifted(text, some, spelled[clip])
            counts.update(reasons)
            of = {"clip_id": clip, "of": text, "model": work.model, "prompt": work.prompt, "written": when}
            rows += [of | {"text": each} for each in kept]
        storage.write(part_counts(step), json.dumps(counts).encode())
        storage.write_table(part(step), pa.Table.from_pylist(rows, schema=REWRITES))  # last: it is finished
        return step


@torch.inference_mode()
def _alternatives(work: Rewriting, captions: list[str], seed: int) -> list[list[str]]:
    """What the model answers for each caption: its most probable answer, and others drawn with the seed."""
    if not captions:
        return []
    model, _ = opened(work.model)
    questions = [work.prompt.replace("{}", caption) for caption in captions]
    turns = [
        answers(model, questions, None, work.tokens, seed=None if turn == 0 else seed + turn)
        for turn in range(work.count)
    ]
    return [list(each) for each in zip(*turns, strict=True)]
