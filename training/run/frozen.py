"""Computes the outputs of frozen encoders for all clips and captions of a run once, instead of in every epoch.

The vectors are kept in the run's folder, or in one that several runs share, below a name that depends on everything
that decides them: the weights, the settings of the encoder and of its input, and the sounds.  They are the same that
each step would compute; where a step's would differ from epoch to epoch, the recipe is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.config.sections import Recipe
from training.data.captions import tokenise
from training.data.loader import Loader
from training.data.sampling.draws import ClipChoice, DrawnSamples, ManifestRows, draw_samples, samples_of
from training.data.sampling.mixture import build_pools
from training.data.sampling.order import SequentialOrder
from training.data.settings import AugmentSettings
from training.data.sound.features import REST, AudioInput, FeatureExtractor, find_front_end
from training.data.sound.masking import Masking
from training.data.sources import training_captions
from training.data.stored import (
    PART,
    PATCHES,
    SEGMENTS,
    SENTENCE,
    WORDS,
    Stored,
    StoredVectors,
    caption_id,
    finished_parts,
    sample_id,
    write_part,
)
from training.engine.distributed import Group
from training.evaluation.encoding import refuse_damaged
from training.run.progress import StatusLine
from training.tasks.base import RunTask

FOLDER = "stored"  # in a run's folder
AT_ONCE = 32  # items that are encoded at once; a divisor of PART
Item = dict[str, Tensor]


def store_frozen(
    task: RunTask, engine: Any, recipe: Recipe, source: Any, folder: Path, group: Group, encoders: Mapping[str, str]
) -> Stored:
    """The vectors of every encoder that ``data.stored`` names; computed where they are not there yet.

    All ranks call this and share the work.  An interrupted computation continues with the parts that are missing.

    Args:
        task: whose encoders; the engine has frozen them.
        engine: `training.engine.step.Engine` of the task.
        recipe: the recipe of the run.
        source: the build.
        folder: the folder of the run.
        group: the ranks.
        encoders: `training.models.encoders.naming.encoder_name` by part.

    Raises:
        InputError: an encoder is trained, or its input or its output changes from epoch to epoch.
    """
    found: dict[str, StoredVectors] = {}
    for part in recipe.data.stored:
        _refuse_changing(task, engine, recipe, source, part, encoders.get(part, ""))
        work = _Sounds(task, engine, recipe, source) if part == "audio" else _Captions(task, engine, recipe, source)
        described = [encoders[part], recipe.engine.dtype, recipe.engine.frozen, *work.described()]
        name = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8)
        name.update(work.ids.tobytes())
        place = Path(recipe.data.stored_folder or folder / FOLDER) / f"{part}-{name.hexdigest()}"
        _compute(work, place, group, is_shared=recipe.data.stored_folder is not None)
        found[part] = StoredVectors(place, work.ids)
    return Stored(**found, encoders=encoders)


def _compute(work: _Sounds | _Captions, place: Path, group: Group, is_shared: bool) -> None:
    """Encode the items of the parts that are missing, each rank its share, and write them."""
    missing: list[int] = []
    if group.rank == 0:
        place.mkdir(parents=True, exist_ok=True)
        if not is_shared:  # else drafts may be those of a run that works now
            Storage(place).sweep()
        there = finished_parts(place)
        missing = [number for number in range(-(-len(work.ids) // PART)) if number not in there]
    missing = group.gather_objects(missing, "missing parts")[0]
    turns = -(-len(missing) // group.size)
    parts = [_of_rank(missing, turn * group.size + group.rank, len(work.ids)) for turn in range(turns)]
    total, done = sum(min(PART, len(work.ids) - number * PART) for number in missing), 0
    line = StatusLine(work.what, total, quiet=group.rank > 0)
    encoded = work.encode([batch for _, batches in parts for batch in batches])
    for number, batches in parts:
        items: list[Item] = []
        for _ in batches:
            items += next(encoded)
            line.update(min(total - 1, done + len(items) * group.size))  # the other ranks are about as far
        if number is not None:
            write_part(place, number, items)
        done = min(total, done + PART * group.size)
        line.update(done)
    group.barrier("stored vectors")


def _of_rank(missing: Sequence[int], place: int, items: int) -> tuple[int | None, list[range]]:
    """The part at a place of the list, and the items of its batches.

    Every rank has as many batches in each turn, because all ranks together gather sharded weights: some may be empty.
    """
    if place >= len(missing):
        return None, [range(0)] * (PART // AT_ONCE)
    first = missing[place] * PART
    ends = [min(first + AT_ONCE * number, items) for number in range(PART // AT_ONCE + 1)]
    return missing[place], [range(begin, end) for begin, end in itertools.pairwise(ends)]


class _Sounds:
    """The samples that training and validation hear."""

    what = "clips encoded"

    def __init__(self, task: Any, engine: Any, recipe: Recipe, source: Any) -> None:
        self.task, self.engine, self.recipe, self.source = task, engine, recipe, source
        self.input = AudioInput.of(task.towers()["audio"])
        self._draws = _every_sample(recipe, source.table)
        self.ids = np.array([sample_id(key) for draws, row in self._draws for key in [draws.keys[row]]], np.int64)

    def described(self) -> list[Any]:
        """What decides the vectors besides the encoder: its input, and the sounds themselves."""
        sounds = hashlib.blake2b(digest_size=16)
        for draws, row in self._draws:
            crop = (draws.xxh3[row], draws.sha256[row], float(draws.start_s[row]), float(draws.duration_s[row]))
            sounds.update(repr(crop).encode())
        return [repr(self.input), REST, sounds.hexdigest(), self.task.model.keeps_patches]

    def encode(self, batches: Sequence[range]) -> Iterator[list[Item]]:
        """The vectors of the items of each batch, in turn."""
        order = _Listed([[self._draws[number] for number in batch] for batch in batches])
        loader = Loader(self.source, order, self.recipe.data, self.input, None, train=False)
        for batch in loader.epoch(0):
            refuse_damaged(batch)
            full = (batch if len(batch) else batch.placeholder()).to(self.engine.device)
            found = self.engine.infer(lambda task, full=full: task.model.clips(full))
            yield [self._item(found, row) for row in range(len(batch))]

    def _item(self, found: Any, row: int) -> Item:
        item = {SEGMENTS: _kept(found.segments[row][found.segment_mask[row]])}
        if found.tokens is not None:
            item[PATCHES] = _kept(found.tokens[row][found.token_mask[row]])
        return item


class _Captions:
    """The captions that training reads."""

    what = "captions encoded"

    def __init__(self, task: Any, engine: Any, recipe: Recipe, source: Any) -> None:
        self.task, self.engine, self.recipe = task, engine, recipe
        self.texts = ["", *training_captions(source.table, recipe.data)]  # a caption without words is empty
        self.ids = np.array([caption_id(text) for text in self.texts], np.int64)

    def described(self) -> list[Any]:
        """What decides the vectors besides the encoder and the captions."""
        return [self.task.keeps_words]

    def encode(self, batches: Sequence[range]) -> Iterator[list[Item]]:
        """The vectors of the items of each batch, in turn."""
        for batch in batches:
            texts = [self.texts[number] for number in batch]
            tokens, mask = tokenise(self.task.tokenizer, texts or ["nothing"], self.recipe.data)
            tokens, mask = tokens.to(self.engine.device), mask.to(self.engine.device)
            found = self.engine.infer(lambda task, a=tokens, b=mask: task.model.encode_text(a, b))
            yield [self._item(found, row) for row in range(len(texts))]

    def _item(self, found: Any, row: int) -> Item:
        item = {SENTENCE: _kept(found.pooled[row : row + 1])}
        if self.task.keeps_words:
            item[WORDS] = _kept(found.tokens[row][found.token_mask[row]])
        return item


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


class _Listed:
    """An order of given batches, whose samples come from several draws."""

    def __init__(self, batches: Sequence[Sequence[tuple[DrawnSamples, int]]]) -> None:
        self._batches = batches
        self.steps_per_epoch = len(batches)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        return _joined(self._batches[step])


def _every_sample(recipe: Recipe, table: Any) -> list[tuple[DrawnSamples, int]]:
    """The draw and the row of every sample that an epoch may draw, and of the clips of the validation split."""
    manifest = ManifestRows(table)
    found: dict[str, tuple[DrawnSamples, int]] = {}
    for item, pool in zip(recipe.data.train, build_pools(table, recipe.data.train), strict=True):
        choices = [ClipChoice(np.array([row]), 0, item) for row in np.unique(pool.rows)]
        for some in _sliced(choices):
            draws = draw_samples(manifest, some, recipe.data, recipe.seed, 0)
            found |= {key: (draws, row) for row, key in enumerate(draws.keys)}
    if recipe.validation.split is not None:
        order = SequentialOrder(table, recipe.validation.split, recipe.data, PART)
        for step in range(order.steps_per_epoch):
            draws = order.batch(0, step)
            found |= {key: (draws, row) for row, key in enumerate(draws.keys)}
    return [found[key] for key in sorted(found)]


def _sliced(choices: Sequence[ClipChoice]) -> Iterable[Sequence[ClipChoice]]:
    return (choices[start : start + PART] for start in range(0, len(choices), PART))


def _joined(samples: Sequence[tuple[DrawnSamples, int]]) -> DrawnSamples:
    """Rows of several draws as one; no sample gives an empty one."""
    names = [each.name for each in fields(DrawnSamples) if each.name != "name_part"]
    return samples_of({name: [getattr(draws, name)[row] for draws, row in samples] for name in names})


def _refuse_changing(task: RunTask, engine: Any, recipe: Recipe, source: Any, part: str, encoder: str) -> None:
    """``InputError`` if an encoder is trained, or gives a sample other vectors in another epoch."""
    reasons: list[tuple[object, str | None, str]] = [  # whether it is so, what it is, remedy
        (why := task.why_not_stored(part, encoder), why, "leave it out of data.stored"),
    ]
    if not why:
        trained = [key for key, value in task.names().items() if key.startswith(f"{part}.") and value.requires_grad]
        reasons += [
            (
                trained,
                f"the {part} encoder is trained, such as {', '.join(trained[:1])}",
                f"set optimizer.freeze: [{part}.*]",
            ),
            (recipe.data.max_failures, "damaged samples have none", "set data.max_failures: 0"),
            *(_changes_of_sound(task, recipe, source) if part == "audio" else ()),
        ]
    if not any(is_so for is_so, *_ in reasons):
        dropped = _draws_inside(task, engine, recipe, part)
        reasons.append((dropped, f"the {part} encoder drops parts at random", f"set {part}.dropout and patchout to 0"))
    for is_so, what, remedy in reasons:
        if is_so:
            raise InputError(f"data.stored: vectors of {part} cannot be stored: {what}", remedy=remedy)


def _changes_of_sound(task: RunTask, recipe: Recipe, source: Any) -> list[tuple[object, str, str]]:
    """What may make a clip sound different from epoch to epoch: whether it is so, what it is, and the remedy."""
    settings, front_end = recipe.data, AudioInput.of(task.towers()["audio"]).front_end
    rows = np.concatenate([pool.rows for pool in build_pools(source.table, settings.train)])
    longest = float(np.asarray(source.table["duration_s"].to_numpy())[rows].max())
    return [
        (Masking(settings.masking).active, "spectrograms are masked at random", "set no masks in data.masking"),
        (settings.augment != AugmentSettings(), "sounds are changed at random", "leave data.augment out"),
        (
            find_front_end(front_end).draws,
            f"the front end {front_end} draws its filters for each sample",
            "choose another audio encoder",
        ),
        (
            settings.crop == "random" and longest > settings.crop_s + 1e-6,
            f"the longest clip has {longest:g} s, of which {settings.crop_s:g} s are drawn at random",
            "set data.crop: start, or a longer data.crop_s",
        ),
    ]


def _draws_inside(task: RunTask, engine: Any, recipe: Recipe, part: str) -> bool:
    """Whether an encoder gives other vectors in training than in evaluation, as with dropout or patchout."""
    torch.manual_seed(0)
    if part == "audio":
        bins, frames = FeatureExtractor(AudioInput.of(task.towers()["audio"]), recipe.data.masking, train=False).shape
        features = torch.randn(2, 1, bins, frames, device=engine.device)
        whole = torch.full((2, 1), frames, device=engine.device)
        seeds = torch.arange(2, device=engine.device)

        def encode(running: Any) -> Tensor:
            return running.model.encode_audio(features, whole, seeds).segments
    else:
        tokens, mask = tokenise(task.tokenizer, ["a dog barks", "rain falls on a roof"], recipe.data)
        tokens, mask = tokens.to(engine.device), mask.to(engine.device)

        def encode(running: Any) -> Tensor:
            return running.model.encode_text(tokens, mask).pooled

    in_evaluation, in_training = (engine.infer(encode, training) for training in (False, True))
    return not torch.allclose(in_evaluation, in_training, rtol=1e-3, atol=1e-4)
