"""Batches, and the loader that makes them: the order's samples, read and transformed by worker processes.

The training process computes the order and sends each worker whole batches to prepare, so a worker's memory
does not grow with the dataset, and what a batch holds does not depend on which worker prepares it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sharding.errors import InputError
from training.data.augment import augment, mixup, mixup_share
from training.data.draws import Draws
from training.data.features import AudioInput, Features, segment_seeds
from training.data.hashing import below, mix
from training.data.samples import SampleReader, Wave
from training.data.settings import DataSettings

PARTNER = 0x50415254  # purpose of a hash: whom a sample is mixed with


@dataclass(frozen=True)
class Batch:
    """A rank's part of a global batch.

    Attributes:
        features: ``[b, S, F, T]`` float32; S segments of each clip.
        frames: ``[b, S]`` int64, frames that hold sound; 0: the whole segment is padding.
        tokens: ``[b, N]`` int64; token_mask: ``[b, N]`` bool.
        clip, caption, group, kin: ``[b]`` int64 stable ids.
        seeds: ``[b]`` int64, randomness inside the model.
        valid: ``[b]`` bool; False: the sample is damaged and must not count in the loss.
        keys, texts: names and captions, ``b`` of each.
        failures: what is wrong with the damaged samples, in words.
    """

    features: Tensor
    frames: Tensor
    tokens: Tensor
    token_mask: Tensor
    clip: Tensor
    caption: Tensor
    group: Tensor
    kin: Tensor
    seeds: Tensor
    valid: Tensor
    keys: list[str]
    texts: list[str]
    failures: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device."""
        return self._tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which copies to a GPU run beside computation."""
        return self._tensors(lambda tensor: tensor.pin_memory())

    def _tensors(self, function: Any) -> Batch:
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: function(x) for name, x in tensors.items() if isinstance(x, Tensor)})


class AnyOrder(Protocol):
    """What the loader needs of an order: ``Order`` and ``SequentialOrder`` have it."""

    steps_per_epoch: int

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Draws:
        """A rank's part of a global batch."""
        ...


@dataclass(frozen=True)
class Request:
    """A batch to prepare: its draws, and for each the draw that may be mixed in."""

    draws: Draws
    partners: Draws | None


@dataclass(frozen=True)
class Prepare(Dataset[Any]):
    """Requests to batches; runs in a worker, holds no state, knows no order."""

    reader: SampleReader
    features: Features
    settings: DataSettings
    tokenizer: Any

    def __getitem__(self, request: Request) -> Batch | InputError:
        try:
            return self.batch(request)
        except InputError as error:
            return error  # an exception would reach the user with a worker's traceback around it

    def batch(self, request: Request) -> Batch:
        draws, failures, clips = request.draws, [], []
        valid = torch.ones(len(draws), dtype=torch.bool)
        for place in range(len(draws)):
            try:
                clips.append(self._clip(request, place))
            except InputError as error:
                if self.settings.max_failures == 0:
                    raise
                failures.append(str(error))
                valid[place] = False
                clips.append(self._encode(np.zeros(self.reader.length(draws, place), np.float32), 0))
        features, frames = self._stack(clips)
        tokens, token_mask = self._tokens(draws.texts)
        ids = {
            name: torch.from_numpy(getattr(draws, name).copy()) for name in ("clip", "caption", "group", "kin", "seeds")
        }
        return Batch(
            features=features,
            frames=frames,
            tokens=tokens,
            token_mask=token_mask,
            **ids,
            valid=valid,
            keys=draws.keys,
            texts=draws.texts,
            failures=failures,
        )

    def _clip(self, request: Request, place: int) -> tuple[Tensor, Tensor]:
        wave = self.reader.read(request.draws, place)
        seed = int(request.draws.seeds[place])
        if self.features.train:
            wave = augment(wave, self.reader.rate, seed, self.settings.augment)
            wave = self._mixed(wave, request, place, seed)
        return self._encode(wave, seed)

    def _mixed(self, wave: Wave, request: Request, place: int, seed: int) -> Wave:
        share = 0.0 if request.partners is None else mixup_share(seed, self.settings.augment)
        if request.partners is None or share == 0:
            return wave
        return mixup(wave, self.reader.read(request.partners, place), share)

    def _encode(self, wave: Wave, seed: int) -> tuple[Tensor, Tensor]:
        """Features ``[S, F, T]`` (on a device: segments ``[S, samples]``) and samples of sound ``[S]``."""
        segments = torch.from_numpy(self.features.audio.cut(wave))
        lengths = torch.from_numpy(self.features.audio.segment_lengths(len(wave)))
        if self.settings.spectrogram == "device":
            return segments, lengths
        return self.features(segments, lengths, torch.from_numpy(segment_seeds(seed, len(segments)))), lengths

    def _stack(self, clips: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        most = max((len(lengths) for _, lengths in clips), default=1)
        one = (self.features.audio.segment,) if self.settings.spectrogram == "device" else self.features.shape
        features = torch.zeros(len(clips), most, *one)
        lengths = torch.zeros(len(clips), most, dtype=torch.int64)
        for place, (values, sound) in enumerate(clips):
            features[place, : len(values)] = values
            lengths[place, : len(sound)] = sound
        if self.settings.spectrogram == "device":
            return features, lengths
        return features, self.features.frames(lengths)

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool)
        out = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.settings.max_tokens, return_tensors="pt"
        )
        return out["input_ids"], out["attention_mask"].bool()


class Loader:
    """A rank's batches of any epoch, from any step.

    Args:
        manifest: ``sharding.manifest.Manifest``; its ``storage`` holds the shards.
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
        self.failures: list[str] = []
        self._features = Features(audio, settings.masking, train)
        reader = SampleReader(manifest.storage, audio.rate, audio.max_s, settings.checksum)
        self._prepare = Prepare(reader, self._features, settings, tokenizer)
        self._workers = settings.workers if workers is None else workers
        self._requests = _Requests(self)
        self._processes: DataLoader[Any] | None = None

    def epoch(self, epoch: int, step: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The rank's batches of steps ``step`` to ``stop`` (or the end); every rank gets equally many."""
        last = self.order.steps_per_epoch
        self._requests.epoch, self._requests.steps = (
            epoch,
            range(step, last if stop is None else min(stop, last)),
        )
        for batch in self._prepared():
            if isinstance(batch, InputError):
                raise batch
            self._count(batch)
            yield self._on_device(batch)

    def request(self, epoch: int, step: int) -> Request:
        """What a worker is asked to prepare for a step."""
        draws = self.order.batch(epoch, step, self.rank, self.world)
        if not (self.train and self.settings.augment.mixup):
            return Request(draws, None)
        whole = self.order.batch(epoch, step)
        return Request(draws, whole.take(below(mix(PARTNER, draws.seeds), len(whole))))

    def _prepared(self) -> Iterator[Any]:
        if self._workers == 0:
            yield from (self._prepare[request] for request in self._requests)
            return
        if self._processes is None:
            self._processes = DataLoader(
                self._prepare,
                batch_size=None,
                sampler=self._requests,
                num_workers=self._workers,
                prefetch_factor=self.settings.readahead,
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
            )
        try:
            yield from self._processes
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"a loader worker died: {str(error).splitlines()[0]}",
                remedy="mostly memory: lower data.workers, data.readahead or the batch size",
            ) from error

    def _count(self, batch: Batch) -> None:
        self.failures += batch.failures
        if len(self.failures) > self.settings.max_failures:
            raise InputError(
                f"{len(self.failures)} samples are damaged, more than max_failures allows; "
                f"the last: {self.failures[-1]}",
                value=self.settings.max_failures,
            )

    def _on_device(self, batch: Batch) -> Batch:
        if self.settings.spectrogram == "worker":
            return batch if self.device.type == "cpu" else batch.to(self.device)
        batch = batch.to(self.device)
        lengths = batch.frames.flatten()
        real = lengths > 0
        segments = batch.features.shape[1]
        seeds = np.stack(
            [segment_seeds(seed, segments) for seed in batch.seeds.cpu().numpy()] or [np.zeros(0, np.int64)]
        )
        features = torch.zeros(len(lengths), *self._features.shape, device=self.device)
        chosen = torch.from_numpy(seeds.ravel()).to(self.device)[real]
        if len(chosen):
            features[real] = self._features(batch.features.flatten(0, 1)[real], lengths[real], chosen)
        return replace(
            batch,
            features=features.unflatten(0, (len(batch), segments)),
            frames=self._features.frames(lengths).unflatten(0, (len(batch), segments)),
        )


class _Requests(Sampler[Request]):
    """Requests of one epoch from a step on; computed in the training process as the workers ask for more."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.epoch, self.steps = loader, 0, range(0)

    def __iter__(self) -> Iterator[Request]:
        for step in self.steps:
            yield self.loader.request(self.epoch, step)
