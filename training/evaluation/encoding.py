"""Clips and captions encoded on all ranks, and gathered in their order on every rank.

Each rank takes whole batches in turn.  So a batch holds the same clips for any number of ranks, and the sides are the
same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.data.batch import Batch
from training.data.captions import tokenise
from training.data.loader import Loader
from training.data.sampling.draws import DrawnSamples
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput
from training.data.stored import NOTHING, Stored
from training.engine.distributed import Group
from training.evaluation.hearing import Hearing
from training.models.heads.base import Head, Side
from training.models.retrieval import RetrievalModel


@dataclass(frozen=True)
class SideEncoder:
    """Computes the sides of clips and of captions that a head scores, without gradients.

    Attributes:
        model: the model whose sides these are.
        settings: the data section of the model's recipe: how captions are spelled, crops, loader workers.
        audio: the side of a batch's clips.
        text: the side of captions, from tokens ``[b, N]`` and their mask ``[b, N]``.
        stored: vectors of the clips that were computed before.
    """

    model: RetrievalModel
    settings: DataSettings
    audio: Callable[[Batch], Side]
    text: Callable[[Tensor, Tensor], Side]
    stored: Stored = NOTHING

    @property
    def head(self) -> Head:
        """The head that scores the sides."""
        head: Head = self.model.head
        return head

    @property
    def audio_input(self) -> AudioInput:
        """The input that the audio encoder takes."""
        return AudioInput.of(self.model.audio)

    @property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer."""
        return self.model.text.tokenizer


def side_encoder(model: RetrievalModel, settings: DataSettings, on: torch.device | None = None) -> SideEncoder:
    """A side encoder that runs the model in this process, ``on`` a device; None: on a GPU where there is one."""
    device = on or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def audio(batch: Batch) -> Side:
        with torch.inference_mode():
            return model.audio_side(batch.features.to(device), batch.frames.to(device), batch.seeds.to(device))

    def text(tokens: Tensor, mask: Tensor) -> Side:
        with torch.inference_mode():
            return model.text_side(tokens.to(device), mask.to(device))

    model.eval().to(device)
    return SideEncoder(model, settings, audio, text)


def engine_side_encoder(
    engine: Any, model: RetrievalModel, settings: DataSettings, stored: Stored = NOTHING
) -> SideEncoder:
    """A side encoder over the engine that trains the model; every rank must call it equally often.

    Args:
        engine: `training.engine.step.Engine`; it gathers weights that are sharded over ranks.
        model: the model of the engine's task.
        settings: the data section of the recipe.
        stored: vectors of the clips that were computed before.
    """

    def audio(batch: Batch) -> Side:
        full = (batch if len(batch) else batch.placeholder()).to(engine.device)
        side = engine.infer(lambda task: task.model.clip_side(full))
        return tuple(tensor[: len(batch)] for tensor in side)

    def text(tokens: Tensor, mask: Tensor) -> Side:
        tokens, mask = tokens.to(engine.device), mask.to(engine.device)
        side: Side = engine.infer(lambda task: task.model.text_side(tokens, mask))
        return side

    return SideEncoder(model, settings, audio, text, stored)


class RoundRobinOrder:
    """Gives each rank whole batches of an order in turn; in the last round some ranks may get an empty batch."""

    def __init__(self, order: SequentialOrder, rank: int, world: int) -> None:
        self.order, self.rank, self.world = order, rank, world
        self.steps_per_epoch = -(-order.steps_per_epoch // world)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The ``step``-th batch of this rank."""
        return self.order.batch(epoch, step * self.world + self.rank)


def encode_clips(
    encoder: SideEncoder | Hearing,
    manifest: Any,
    order: SequentialOrder,
    group: Group,
    progress: Callable[[int, int], None] | None = None,
) -> Side:
    """The audio sides of all clips of an order, in its order, on the CPU of every rank.

    Args:
        encoder: computes the sides.
        manifest: the manifest of the build.
        order: the clips.
        group: the ranks; each encodes its share.
        progress: called with the number of batches that are done, and of all batches.
    """
    mine = RoundRobinOrder(order, group.rank, group.size)
    stored = encoder.stored if isinstance(encoder, SideEncoder) else NOTHING
    audio, tokenizer = encoder.audio_input, encoder.tokenizer
    loader = Loader(manifest, mine, encoder.settings, audio, tokenizer, train=False, stored=stored)
    report = progress or (lambda done, total: None)
    report(0, order.steps_per_epoch)
    sides = []
    for step, batch in enumerate(loader.epoch(0)):
        refuse_damaged(batch)
        sides.append(_on_cpu(encoder.audio(batch)))
        report(min((step + 1) * group.size, order.steps_per_epoch), order.steps_per_epoch)
    return _gather(sides, order.draws_per_epoch, order.batch_size, group, "audio sides")


def infer_clips(
    engine: Any,
    call: Callable[[Any, Batch], Sequence[Any]],
    manifest: Any,
    order: SequentialOrder,
    audio: AudioInput,
    tokenizer: Any,
    group: Group,
) -> list[Any]:
    """The results of a function of task and batch for each clip of an order, in this order on every rank.

    Args:
        engine: `training.engine.step.Engine`.
        call: gives one value for each clip of a batch.
        manifest: the manifest of the build.
        order: the clips.
        audio, tokenizer: how clips and captions are read.
        group: the ranks; each takes whole batches in turn.
    """
    mine = RoundRobinOrder(order, group.rank, group.size)
    loader = Loader(manifest, mine, order.settings, audio, tokenizer, train=False)
    found: list[tuple[int, Any]] = []
    for step, batch in enumerate(loader.epoch(0)):
        refuse_damaged(batch)
        full = (batch if len(batch) else batch.placeholder()).to(engine.device)
        values = engine.infer(lambda task, full=full: call(task, full))
        first = (step * group.size + group.rank) * order.batch_size
        found += [(first + number, value) for number, value in enumerate(values[: len(batch)])]
    shares = group.gather_objects(found, "results of clips")
    return [value for _, value in sorted((pair for share in shares for pair in share), key=lambda pair: pair[0])]


def encode_texts(encoder: SideEncoder, texts: Sequence[str], group: Group, batch_size: int) -> Side:
    """The text sides of captions in the recipe's spelling, in their order, on the CPU of every rank."""
    batches = -(-len(texts) // batch_size)
    sides = []
    for turn in range(-(-batches // group.size)):
        start = (turn * group.size + group.rank) * batch_size
        batch = list(texts[start : start + batch_size])
        # Every rank encodes in every turn, since all ranks together gather sharded weights.
        side = encoder.text(*tokenise(encoder.tokenizer, batch or ["nothing"], encoder.settings))
        sides.append(_on_cpu(tuple(tensor[: len(batch)] for tensor in side)))
    return _gather(sides, len(texts), batch_size, group, "text sides")


def refuse_damaged(batch: Batch) -> None:
    """``InputError`` if a clip of the batch could not be read."""
    if batch.failures:
        remedy = "rebuild the shard that `earshot verify` names"
        raise InputError(f"a clip cannot be read: {batch.failures[0]}", remedy=remedy)


def join(sides: Sequence[Side]) -> Side:
    """The sides of several batches as one; tensors of shorter items are padded with zeros, which the masks exclude."""
    joined = []
    for tensors in zip(*sides, strict=True):
        longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        rows = []
        for tensor in tensors:
            padded = tensor.new_zeros((len(tensor), *longest))
            padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
            rows.append(padded)
        joined.append(torch.cat(rows))
    return tuple(joined)


def _on_cpu(side: Side) -> Side:
    return tuple((tensor.float() if tensor.is_floating_point() else tensor).cpu() for tensor in side)


def _gather(sides: Sequence[Side], count: int, batch_size: int, group: Group, name: str) -> Side:
    """The batches of all ranks in the order in which one rank would have them; ``count`` items in all."""
    whole = group.gather_many(join(sides), name)
    positions = [_positions(count, batch_size, rank, group.size) for rank in range(group.size)]
    order = torch.from_numpy(np.argsort(np.concatenate(positions), kind="stable"))
    return tuple(tensor.detach()[order] for tensor in whole)


def _positions(count: int, batch_size: int, rank: int, world: int) -> npt.NDArray[np.int64]:
    """Where the items of a rank's batches stand in the whole order."""
    items = np.arange(count)
    return items[items // batch_size % world == rank]
