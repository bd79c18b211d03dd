"""The loader: the samples of an order, read and transformed by worker processes.

The training process computes the order and sends each worker whole batches to build.  A worker's memory
therefore does not grow with the dataset, and a batch does not depend on which worker builds it.
"""

from __future__ import annotations

import gc
import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import pyarrow.compute as pc
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Sampler

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.data.batch import Batch, Columns
from training.data.buffers import BufferPool, keep_freed_memory
from training.data.builder import BatchBuilder, BatchRequest, PackedBatch, SilentBuilder
from training.data.read_ahead import BATCHES, Ahead
from training.data.sample_cache import SampleCache
from training.data.samples import SampleReader
from training.data.sampling.draws import DrawnSamples
from training.data.sampling.hashing import hash64, integers_below
from training.data.settings import DataSettings
from training.data.sound.features import AudioInput, FeatureExtractor, segment_seeds
from training.data.stored import NOTHING, Stored
from training.data.tags import TagVocabulary, read_vocabulary

_WORKER_DIED = re.compile(r"DataLoader worker \(pid.*(exited unexpectedly|killed by signal)")
PARTNER = 0x50415254  # part of the hash that chooses the partner of a sample for mixup


class BatchOrder(Protocol):
    """The interface of an order that the loader uses; ``Order`` and ``SequentialOrder`` have it."""

    steps_per_epoch: int

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """A rank's part of a global batch."""
        ...


class Builder(Protocol):
    """Builds the batch of a request in a worker process; it knows neither the order nor other batches."""

    def __getitem__(self, request: BatchRequest) -> Columns | PackedBatch | InputError:
        """The batch, packed where it goes through shared buffers, or what is wrong with a sample."""
        ...

    def floats_per_clip(self) -> int:
        """Numbers in the features of the longest sample; 0: batches go through no shared buffers."""
        ...


class BatchLoader:
    """A rank's batches of any epoch, from any step, whatever they are made of.

    Args:
        order: ``Order`` for training, ``SequentialOrder`` for evaluation.
        builder: makes a batch of drawn samples.
        settings: the recipe's data section.
        rank, world: this rank and the number of ranks; each rank gets a contiguous part of the global batch.
        workers: worker processes; None: as the settings say; 0: this process does the work.
        mixup: whether each sample gets a partner from the next batch.
        device: the device of the batches.
        ahead: whether workers are told which requests they will get later, so that they can begin to read.

    Attributes:
        failures: the damaged samples so far by key, each with a description; ``max_failures`` is their limit.
    """

    def __init__(
        self,
        order: BatchOrder,
        builder: Builder,
        settings: DataSettings,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        mixup: bool = False,
        device: torch.device | str = "cpu",
        ahead: bool = False,
    ) -> None:
        self.order, self.settings = order, settings
        self.device = torch.device(device)
        self.failures: dict[str, str] = {}
        self._builder = builder
        self._workers = settings.workers if workers is None else workers
        lanes = max(1, self._workers)
        later = range(lanes, (BATCHES + 1) * lanes, lanes) if ahead else range(0)
        self._requests = BatchRequests(order, rank, world, mixup, later)
        self._processes: DataLoader[Any] | None = None
        self._iterators = 0  # how many iterators were handed out

    def epoch(self, epoch: int, step: int = 0, stop: int | None = None) -> Iterator[Any]:
        """The rank's batches from ``step`` to ``stop`` or the epoch's end; every rank gets equally many.

        A loader is in one epoch at a time: the next call ends the iterator that the last call returned.

        Raises:
            InputError: more samples are damaged than ``max_failures`` allows, a worker died, or an iterator
                that a later call ended is asked for another batch.
        """
        last = self.order.steps_per_epoch
        self._iterators += 1
        return self._batches(self._iterators, epoch, range(step, last if stop is None else min(stop, last)))

    def _batches(self, iterator: int, epoch: int, steps: range) -> Iterator[Any]:
        self._check_current(iterator)
        self._requests.epoch, self._requests.steps, self._requests.iterator = epoch, steps, iterator
        for built in self._built():
            if isinstance(built, InputError):
                raise built
            batch = built.unpack() if isinstance(built, PackedBatch) else built
            del built  # a reference would keep the batch's buffer in use while the next batch is built
            self._count_failures(batch)
            yield self._on_device(batch)
            del batch
            self._check_current(iterator)

    def _check_current(self, iterator: int) -> None:
        if iterator != self._iterators:
            raise InputError(
                "this epoch was ended by a later call of Loader.epoch",
                remedy="finish one before the next, or make a second Loader",
            )

    def _built(self) -> Iterator[Any]:
        """What the workers return for each request: a batch, a ``PackedBatch`` or an ``InputError``."""
        if self._workers == 0:
            yield from (self._builder[request] for request in self._requests)
            return
        if self._processes is None:
            self._processes = self._start_workers()
        try:
            yield from self._processes
        except RuntimeError as error:
            # torch also raises RuntimeError for an exception inside a worker that it cannot recreate here.
            if not _WORKER_DIED.search(str(error)):
                raise
            self._processes = None
            raise InputError(
                f"a loader worker died: {str(error).splitlines()[0]}",
                remedy="memory is the usual reason: lower data.workers, data.readahead or the batch size",
            ) from error

    def _start_workers(self) -> DataLoader[Any]:
        """The workers; they are forked when the first epoch begins."""
        gc.collect()  # garbage of this process must not be collected in a worker; see _prepare_worker
        builder: Any = self._builder
        floats = self._builder.floats_per_clip()
        if floats and torch.multiprocessing.get_start_method() == "fork":
            # One buffer for each batch that is built ahead, one for the batch in use, and one for the batch before it.
            count = self._workers * self.settings.readahead + 2
            self._requests.buffers = BufferPool(count, self._requests.largest_batch() * floats)
            builder = replace(builder, buffers=self._requests.buffers)
        return DataLoader(
            builder,
            batch_size=None,
            sampler=self._requests,
            num_workers=self._workers,
            prefetch_factor=self.settings.readahead,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_prepare_worker,
        )

    def _count_failures(self, batch: Columns) -> None:
        damaged = (key for key, valid in zip(batch.keys, batch.valid.tolist(), strict=True) if not valid)
        self.failures |= zip(damaged, batch.failures, strict=True)
        if len(self.failures) > self.settings.max_failures:
            raise InputError(
                f"{len(self.failures)} samples are damaged, more than max_failures allows; "
                f"the last: {batch.failures[-1]}",
                value=self.settings.max_failures,
            )

    def _on_device(self, batch: Any) -> Any:
        """The batch on the loader's device."""
        return batch if self.device.type == "cpu" else batch.to(self.device)


class Loader(BatchLoader):
    """A rank's batches of clips.

    Args:
        manifest: ``sharding.shards.manifest.Manifest``; its ``storage`` holds the shards.
        order: ``Order`` for training, ``SequentialOrder`` for evaluation.
        settings: the recipe's data section.
        audio: the input that the audio encoder takes: ``AudioInput.of(encoder)``.
        tokenizer: a transformers tokenizer; None: the batches have no tokens.
        rank, world, workers: as for `BatchLoader`.
        train: whether to draw filter edges, masks and augmentation.
        stored: vectors of samples and captions that were computed before.  Then no sound is read.
        device: the device of the batches; ``spectrogram: device`` computes spectrograms there.
    """

    def __init__(
        self,
        manifest: Any,
        order: BatchOrder,
        settings: DataSettings,
        audio: AudioInput,
        tokenizer: Any,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        train: bool = True,
        device: torch.device | str = "cpu",
        stored: Stored = NOTHING,
    ) -> None:
        self.audio, self._stored = audio, stored
        self._features = FeatureExtractor(audio, settings.masking, train)
        storage = manifest.storage
        if isinstance(storage, Storage):  # a new one: connections that this process has open do not survive a fork
            storage = Storage(storage.url)
        remote = isinstance(storage, Storage) and storage.local is None
        cache = SampleCache.of_environment(pc.sum(manifest.table["audio_bytes"]).as_py() or 0) if remote else None
        reader = SampleReader(storage, audio.rate, audio.max_s, cache)
        tags = read_vocabulary(manifest.table, settings) if train else TagVocabulary()
        if stored.audio is not None:
            workers = 0  # looking vectors up takes less time than sending them from another process
        make = BatchBuilder if stored.audio is None else SilentBuilder
        builder = make(reader, self._features, settings, tokenizer, tags, ahead=Ahead(reader.times))
        mixup = train and settings.augment.mixup > 0
        super().__init__(order, builder, settings, rank, world, workers, mixup, device, ahead=remote)

    def _on_device(self, batch: Batch) -> Batch:
        """The batch on the loader's device, with features computed there if the settings say so."""
        batch = self._stored.attach(batch)
        if self.settings.spectrogram == "worker" or self._stored.audio is not None:
            moved: Batch = super()._on_device(batch)
            return moved
        batch = batch.to(self.device)
        lengths = batch.frames.flatten()
        has_sound = lengths > 0
        segments = batch.features.shape[1]
        features = torch.zeros(len(lengths), *self._features.shape, device=self.device)
        seeds = torch.from_numpy(segment_seeds(batch.seeds.cpu().numpy(), segments)).flatten().to(self.device)
        if has_sound.any():
            waves = batch.features.flatten(0, 1)[has_sound]
            features[has_sound] = self._features(waves, lengths[has_sound], seeds[has_sound])
        return replace(
            batch,
            features=features.unflatten(0, (len(batch), segments)),
            frames=self._features.frames(lengths).unflatten(0, (len(batch), segments)),
        )


def _prepare_worker(number: int) -> None:
    """Set up a worker that was forked.

    Objects that it inherits are never collected there: the destructor of one with threads of its own, such as torch's
    process group of an earlier run, would wait for ever for threads that a fork does not copy.
    """
    gc.freeze()
    keep_freed_memory(number)


class BatchRequests(Sampler[BatchRequest]):
    """The requests of one epoch from a step on, made in the training process when the workers ask for more.

    torch hands requests to its workers in turn, so each worker can be told what it will get later.

    Args:
        order: the order of the samples.
        rank, world: this rank and the number of ranks.
        mixup: whether samples are mixed.
        ahead: which later requests, counted from each, are of the same worker and are named to it; empty: none are.

    Attributes:
        epoch, steps, iterator: what is requested next, and for which iterator of an epoch.
        buffers: the pool whose buffers are named in the requests; None if there is none.
    """

    def __init__(self, order: BatchOrder, rank: int, world: int, mixup: bool, ahead: range = range(0)) -> None:
        self.order, self.rank, self.world, self.mixup, self.ahead = order, rank, world, mixup, ahead
        self.epoch, self.steps, self.iterator = 0, range(0), 0
        self.buffers: BufferPool | None = None

    def __iter__(self) -> Iterator[BatchRequest]:
        if self.buffers is not None:
            self.buffers.free_reserved()  # torch has waited for the workers to finish what the last epoch requested
        coming = (self.request(step) for step in self.steps)
        known = deque(itertools.islice(coming, self.ahead.stop or 1))
        count = 0
        while known:
            # a worker's first request names all that follow; each later one names the last of them
            named = self.ahead if count < self.ahead.step else self.ahead[-1:]
            upcoming = tuple(known[place] for place in named if place < len(known))
            request = known.popleft()
            known.extend(itertools.islice(coming, 1))
            count += 1
            buffer = None if self.buffers is None else self.buffers.reserve()
            yield replace(request, buffer=buffer, upcoming=upcoming)

    def request(self, step: int) -> BatchRequest:
        """The request of a step, without a buffer."""
        draws, place = self.order.batch(self.epoch, step, self.rank, self.world), (self.iterator, step)
        if not self.mixup:
            return BatchRequest(draws, None, place=place)
        # Partners come from the next batch.  In the same batch a partner's own caption would count as a negative
        # of the mixed clip, which holds the partner's sound.
        epochs_later, next_step = divmod(step + 1, self.order.steps_per_epoch)
        whole = self.order.batch(self.epoch + epochs_later, next_step)
        return BatchRequest(draws, whole.take(integers_below(hash64(PARTNER, draws.seeds), len(whole))), place=place)

    def largest_batch(self) -> int:
        """The number of clips in the largest batch that can be expected."""
        if not self.steps:
            return 0
        return len(self.order.batch(self.epoch, self.steps[0], self.rank, self.world)) + 1  # parts differ by one
