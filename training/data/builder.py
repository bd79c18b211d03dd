"""Builds the batch of a request in a worker of the loader; the worker does not know the order."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sharding.common.errors import InputError
from training.data.batch import Batch
from training.data.buffers import BufferPool, FilledBuffer
from training.data.captions import tokenise
from training.data.read_ahead import Ahead
from training.data.samples import ReadWave, SampleReader, Wave
from training.data.sampling.draws import DrawnSamples
from training.data.settings import DataSettings
from training.data.sound.augment import augment, mixup, mixup_share
from training.data.sound.features import Drawn, FeatureExtractor, find_front_end, segment_seeds
from training.data.tags import TagVocabulary


@dataclass(frozen=True)
class BatchRequest:
    """A batch to build.

    Attributes:
        draws: its samples.
        partners: for each sample the one that mixup may mix in; None: there is no mixup.
        buffer: the buffer of the pool that receives the features; None: the worker allocates memory.
        place: the number of the iterator of an epoch, and the step.
        upcoming: requests that the worker will get later; from an object store it begins to read them now.
    """

    draws: DrawnSamples
    partners: DrawnSamples | None
    buffer: int | None = None
    place: tuple[int, int] = (0, 0)
    upcoming: tuple[BatchRequest, ...] = ()


class BatchReads(NamedTuple):
    """The reads of a request: of its samples, and of those that are mixed in."""

    draws: ReadWave
    partners: ReadWave | None
    shares: list[float]
    mixed: NDArray[np.int64]


@dataclass(frozen=True)
class PackedBatch:
    """A batch on its way from a worker to the training process.

    Attributes:
        features: the features, or the buffer that holds them.
        arrays: the other tensors of ``Batch`` by name, as arrays: each tensor would need its own shared memory.
        lists: keys, texts, labels and failures.
        name_part: what the samples add to the name of the global batch.
    """

    features: Tensor | FilledBuffer
    arrays: dict[str, NDArray[Any]]
    lists: dict[str, list[Any]]
    name_part: int

    def unpack(self) -> Batch:
        """The batch, in the process that made the buffers."""
        features = self.features.read() if isinstance(self.features, FilledBuffer) else self.features
        tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        return Batch(features=features, name_part=self.name_part, **tensors, **self.lists)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's pinning thread calls this."""
        return self.unpack().pin_memory()


@dataclass(frozen=True)
class BatchBuilder(Dataset[Any]):
    """Builds the batch of a request.

    Attributes:
        reader: reads the sound of samples.
        features: computes features of sound.
        settings: the recipe's data section.
        tokenizer: a transformers tokenizer; None: the batches have no tokens.
        tags: the vocabulary that maps tags of clips to clusters.
        buffers: memory that is shared with the training process; None if there is none.
        ahead: the reads that have begun.
    """

    reader: SampleReader
    features: FeatureExtractor
    settings: DataSettings
    tokenizer: Any
    tags: TagVocabulary = field(default_factory=TagVocabulary)
    buffers: BufferPool | None = None
    ahead: Ahead[BatchReads] = field(default_factory=Ahead)

    def __getitem__(self, request: BatchRequest) -> PackedBatch | InputError:
        try:
            return self.build(request)
        except InputError as error:
            return error  # if it were raised, torch would wrap it into the worker's traceback

    def build(self, request: BatchRequest) -> PackedBatch:
        """The batch of a request.

        Raises:
            InputError: a sample is damaged, and ``max_failures`` allows none.
        """
        draws = request.draws
        lengths = self._lengths(draws)
        features, filled = self._allocate(request.buffer, (*lengths.shape, *self._segment_shape))
        valid, failures = self._fill(request, features, lengths)
        on_device = self.settings.spectrogram == "device"
        frames = lengths if on_device else self.features.frames(lengths)
        tokens, token_mask = self._tokens(draws.texts)
        ids = {name: getattr(draws, name).copy() for name in ("clip", "caption", "group", "kin", "seeds")}
        tags = self.tags.words(draws.labels, draws.texts, self.settings)
        begin = draws.origin_s + draws.start_s
        heard = torch.from_numpy(np.column_stack([begin, begin + draws.duration_s]))
        tensors = {"frames": frames, "tokens": tokens, "token_mask": token_mask, "tags": tags, "heard_s": heard}
        return PackedBatch(
            features=features if filled is None else filled,
            arrays={name: tensor.numpy() for name, tensor in tensors.items()} | ids | {"valid": valid},
            lists={"keys": draws.keys, "texts": draws.texts, "labels": draws.labels, "failures": failures},
            name_part=draws.name_part,
        )

    def floats_per_clip(self) -> int:
        """Numbers in the features of the longest clip."""
        seconds = min(self.settings.crop_s, self.reader.max_s)
        segments = len(self.features.audio.segment_lengths(max(1, round(seconds * self.reader.rate))))
        return segments * math.prod(self._segment_shape)

    def _allocate(self, buffer: int | None, shape: tuple[int, ...]) -> tuple[Tensor, FilledBuffer | None]:
        return (torch.empty(shape), None) if self.buffers is None else self.buffers.fill(buffer, shape)

    @property
    def _segment_shape(self) -> tuple[int, ...]:
        """The shape of one segment's features, or of the samples from which a device computes them."""
        return (self.features.audio.segment,) if self.settings.spectrogram == "device" else self.features.shape

    def _lengths(self, draws: DrawnSamples) -> Tensor:
        """The samples of sound in every segment, ``[b, S]``; zero after a clip's last segment."""
        audio = self.features.audio
        clips = [audio.segment_lengths(self.reader.length(draws, row)) for row in range(len(draws))]
        lengths = np.zeros((len(clips), max(map(len, clips), default=1)), np.int64)
        for row, clip in enumerate(clips):
            lengths[row, : len(clip)] = clip
        return torch.from_numpy(lengths)

    def _fill(self, request: BatchRequest, features: Tensor, lengths: Tensor) -> tuple[NDArray[np.bool_], list[str]]:
        """Write the features of all samples; returns which samples are valid, and what is wrong with others."""
        draws = request.draws
        valid, failures = np.ones(len(draws), dtype=bool), []
        wave_of, plain = self._waves(request), self._plain
        segments = lengths.shape[1]
        drawn = self.features.draw(lengths.flatten(), segment_seeds(draws.seeds, segments).ravel())
        for row in range(len(draws)):
            try:
                wave = wave_of(row, self._space(features[row]) if plain else None)
            except InputError as error:
                if self.settings.max_failures == 0:
                    raise
                failures.append(str(error))
                valid[row] = False
                wave = np.zeros(self.reader.length(draws, row), np.float32)
            count = np.count_nonzero(lengths[row].numpy())
            own = drawn.take(slice(row * segments, row * segments + count))
            self._write(wave, lengths[row, :count], own, features[row])
        return valid, failures

    def _reads(self, request: BatchRequest) -> BatchReads:
        """The reads of a request; from an object store, those of later requests begin as well."""
        if not self.reader.remote:
            return self._begin(request)
        for later in request.upcoming:
            self.ahead.announce(later.place, int(later.draws.size.sum()), functools.partial(self._begin, later))
        return self.ahead.take(request.place, functools.partial(self._begin, request))

    def _begin(self, request: BatchRequest) -> BatchReads:
        read, partners = self.reader.start(request.draws), request.partners
        if partners is None or not self.features.train:
            return BatchReads(read, None, [0.0] * len(request.draws), np.zeros(0, np.int64))
        shares = [mixup_share(seed, self.settings.augment) for seed in request.draws.seeds.tolist()]
        mixed = np.flatnonzero(shares)
        return BatchReads(read, self.reader.start(partners.take(mixed)) if len(mixed) else None, shares, mixed)

    def _waves(self, request: BatchRequest) -> ReadWave:
        """A function from a row of the batch to its wave, after augmentation and mixup."""
        reads = self._reads(request)
        if not self.features.train:
            return reads.draws
        settings, seeds = self.settings.augment, request.draws.seeds.tolist()

        def wave_of(row: int, out: Wave | None = None) -> Wave:
            wave = augment(reads.draws(row, out), self.reader.rate, seeds[row], settings)
            if reads.partners is None or not reads.shares[row]:
                return wave
            return mixup(wave, reads.partners(int(np.searchsorted(reads.mixed, row))), reads.shares[row])

        return wave_of

    @property
    def _plain(self) -> bool:
        """Whether samples are written as they are."""
        return self.settings.spectrogram == "device" or find_front_end(self.features.audio.front_end).plain

    def _space(self, features: Tensor) -> Wave:
        """Where the samples of a clip lie in its ``features [S, ...]``, if they lie there in one piece."""
        audio = self.features.audio
        return (features if audio.hop_s == audio.segment_s else features[:1]).flatten().numpy()

    def _write(self, wave: Wave, lengths: Tensor, drawn: Drawn, features: Tensor) -> None:
        """Fill one clip's ``features [S, ...]`` with its segments; what follows them is zero."""
        count = len(lengths)
        if self._plain and np.may_share_memory(wave, features.numpy()):
            # a short rest of a clip is no segment
            features.flatten()[min(len(wave), count * self.features.audio.segment) :] = 0
            return
        features[count:] = 0
        segments = torch.from_numpy(self.features.audio.cut(wave))
        if self._plain:
            features[:count] = segments.view_as(features[:count])
        else:
            self.features.transform(segments, lengths, drawn, features[:count])

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        if not texts or self.tokenizer is None:
            return torch.zeros(len(texts), 1, dtype=torch.int64), torch.zeros(len(texts), 1, dtype=torch.bool)
        return tokenise(self.tokenizer, texts, self.settings)


@dataclass(frozen=True)
class SilentBuilder(BatchBuilder):
    """Builds batches without sound, whose vectors are stored."""

    def floats_per_clip(self) -> int:
        return 0

    @property
    def _segment_shape(self) -> tuple[int, ...]:
        return (0,)

    def _lengths(self, draws: DrawnSamples) -> Tensor:
        return torch.zeros(len(draws), 1, dtype=torch.int64)

    def _fill(self, request: BatchRequest, features: Tensor, lengths: Tensor) -> tuple[NDArray[np.bool_], list[str]]:
        return np.ones(len(request.draws), dtype=bool), []
