"""The loader: the order's samples, read and transformed by worker processes.

The training process computes the order and sends each worker whole batches to prepare, so a worker's memory
does not grow with the dataset, and what a batch holds does not depend on which worker prepares it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Sampler

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.data.draws import Draws
from training.data.features import AudioInput, Features, segment_seeds
from training.data.hashing import below, mix
from training.data.prepare import Batch, Packed, Prepare, Request
from training.data.samples import SampleReader
from training.data.settings import DataSettings
from training.data.shared import Slots, keep_memory

_DIED = re.compile(r"DataLoader worker \(pid.*(exited unexpectedly|killed by signal)")
PARTNER = 0x50415254  # purpose of a hash: whom a sample is mixed with


class AnyOrder(Protocol):
    """What the loader needs of an order: ``Order`` and ``SequentialOrder`` have it."""

    steps_per_epoch: int

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Draws:
        """A rank's part of a global batch."""
        ...


class Loader:
    """A rank's batches of any epoch, from any step.

    Args:
        manifest: ``sharding.shards.manifest.Manifest``; its ``storage`` holds the shards.
        order: ``Order`` (training) or ``SequentialOrder`` (evaluation).
        settings: the recipe's data section.
        audio: what the audio encoder wants: ``AudioInput.of(encoder)``.
        tokenizer: a transformers tokenizer.
        rank, world: this rank and how many there are; the global batch is dealt in contiguous parts.
        workers: processes; None: as the settings say; 0: in this process.
        train: jitter, masks and augmentation.
        device: batches come on it, and ``spectrogram: device`` computes there.

    Attributes:
        failures: damaged samples so far, in words; ``max_failures`` of the settings is their limit.
    """

    def __init__(
        self,
        manifest: Any,
        order: AnyOrder,
        settings: DataSettings,
        audio: AudioInput,
        tokenizer: Any,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        train: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.order, self.settings, self.audio = order, settings, audio
        self.rank, self.world, self.train = rank, world, train
        self.device = torch.device(device)
        self.failures: dict[str, str] = {}
        self._features = Features(audio, settings.masking, train)
        storage = manifest.storage
        if isinstance(storage, Storage):  # afresh: connections that this process may have open survive no fork
            storage = Storage(storage.url)
        reader = SampleReader(storage, audio.rate, audio.max_s, settings.checksum)
        self._prepare = Prepare(reader, self._features, settings, tokenizer)
        self._workers = settings.workers if workers is None else workers
        mixed = train and settings.augment.mixup > 0
        self._requests = _Requests(order, rank, world, mixed)
        self._processes: DataLoader[Any] | None = None
        self._epochs = 0  # iterators handed out

    def epoch(self, epoch: int, step: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The rank's batches of steps ``step`` to ``stop`` (or the end); every rank gets equally many.

        A loader is in one epoch at a time: the next call ends the iterator before it.

        Raises:
            InputError: a sample is damaged (beyond ``max_failures``), a worker died, or an iterator that was
                ended is asked for more.
        """
        last = self.order.steps_per_epoch
        self._epochs += 1
        return self._batches(self._epochs, epoch, range(step, last if stop is None else min(stop, last)))

    def _batches(self, turn: int, epoch: int, steps: range) -> Iterator[Batch]:
        self._still(turn)
        self._requests.epoch, self._requests.steps = epoch, steps
        for prepared in self._prepared():
            if isinstance(prepared, InputError):
                raise prepared
            batch = prepared.unpack() if isinstance(prepared, Packed) else prepared
            del prepared  # else it would hold the batch's memory while the next one is made
            self._count(batch)
            yield self._on_device(batch)
            del batch
            self._still(turn)

    def _still(self, turn: int) -> None:
        if turn != self._epochs:
            raise InputError(
                "this epoch was ended by a later call of Loader.epoch",
                remedy="finish one before the next, or make a second Loader",
            )

    def _prepared(self) -> Iterator[Any]:
        if self._workers == 0:
            yield from (self._prepare[request] for request in self._requests)
            return
        if self._processes is None:
            self._processes = self._start()
        try:
            yield from self._processes
        except RuntimeError as error:
            # An exception inside a worker is a RuntimeError too, where torch cannot make one like it here.
            if not _DIED.search(str(error)):
                raise
            self._processes = None
            raise InputError(
                f"a loader worker died: {str(error).splitlines()[0]}",
                remedy="mostly memory: lower data.workers, data.readahead or the batch size",
            ) from error

    def _start(self) -> DataLoader[Any]:
        """The workers, forked when the first epoch begins."""
        slots = None
        if torch.multiprocessing.get_start_method() == "fork":
            # One batch in each place of the readahead, the one in use, and one that was just used.
            slots = Slots(self._workers * self.settings.readahead + 2, self._requests.largest(self._prepare))
        self._requests.slots = slots
        return DataLoader(
            replace(self._prepare, slots=slots),
            batch_size=None,
            sampler=self._requests,
            num_workers=self._workers,
            prefetch_factor=self.settings.readahead,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=keep_memory,
        )

    def _count(self, batch: Batch) -> None:
        damaged = (key for key, valid in zip(batch.keys, batch.valid.tolist(), strict=True) if not valid)
        self.failures |= zip(damaged, batch.failures, strict=True)
        if len(self.failures) > self.settings.max_failures:
            raise InputError(
                f"{len(self.failures)} samples are damaged, more than max_failures allows; "
                f"the last: {batch.failures[-1]}",
                value=self.settings.max_failures,
            )

    def _on_device(self, batch: Batch) -> Batch:
        if self.settings.spectrogram == "worker":
            return batch if self.device.type == "cpu" else batch.to(self.device)
        batch = batch.to(self.device)
        lengths = batch.frames.flatten()
        real = lengths > 0
        segments = batch.features.shape[1]
        seeds = segment_seeds(batch.seeds.cpu().numpy(), segments)
        features = torch.zeros(len(lengths), *self._features.shape, device=self.device)
        chosen = torch.from_numpy(seeds).flatten().to(self.device)[real]
        if len(chosen):
            features[real] = self._features(batch.features.flatten(0, 1)[real], lengths[real], chosen)
        return replace(
            batch,
            features=features.unflatten(0, (len(batch), segments)),
            frames=self._features.frames(lengths).unflatten(0, (len(batch), segments)),
        )


class _Requests(Sampler[Request]):
    """Requests of one epoch from a step on; computed in the training process as the workers ask for more."""

    def __init__(self, order: AnyOrder, rank: int, world: int, mixed: bool) -> None:
        self.order, self.rank, self.world, self.mixed = order, rank, world, mixed
        self.epoch, self.steps = 0, range(0)
        self.slots: Slots | None = None

    def __iter__(self) -> Iterator[Request]:
        if self.slots is not None:
            self.slots.recall()  # torch has waited for the workers to finish what an earlier epoch asked for
        for step in self.steps:
            slot = None if self.slots is None else self.slots.promise()
            yield replace(self.request(step), slot=slot)

    def request(self, step: int) -> Request:
        """What a worker is asked to prepare for a step."""
        draws = self.order.batch(self.epoch, step, self.rank, self.world)
        if not self.mixed:
            return Request(draws, None)
        # from the next batch: of this one the partner's caption would count as wrong for the mix
        later, place = divmod(step + 1, self.order.steps_per_epoch)
        whole = self.order.batch(self.epoch + later, place)
        return Request(draws, whole.take(below(mix(PARTNER, draws.seeds), len(whole))))

    def largest(self, prepare: Prepare) -> int:
        """Numbers in the features of the largest batch that is expected."""
        if not self.steps:
            return 0
        clips = len(self.order.batch(self.epoch, self.steps[0], self.rank, self.world)) + 1  # parts differ by one
        return clips * prepare.floats_a_clip()
