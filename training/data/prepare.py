"""From a request to a batch: what a loader worker does; it holds no state and knows no order."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sharding.common.errors import InputError
from training.data.augment import augment, mixup, mixup_share
from training.data.captions import tokenise
from training.data.draws import Draws
from training.data.features import Features, segment_seeds
from training.data.samples import ReadWave, SampleReader, Wave
from training.data.settings import DataSettings
from training.data.shared import Lent, Slots


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


@dataclass(frozen=True)
class Packed:
    """A batch on its way from a worker: its features lie in a slot, or travel in ``features``.

    Attributes:
        arrays: the other tensors of ``Batch`` by name; as arrays they cost no shared memory each.
        lists: keys, texts and failures.
    """

    features: Tensor | Lent
    arrays: dict[str, NDArray[Any]]
    lists: dict[str, list[str]]

    def unpack(self) -> Batch:
        """The batch, in the process that made the slots."""
        features = Slots.receive(self.features) if isinstance(self.features, Lent) else self.features
        tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        return Batch(features=features, **tensors, **self.lists)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """What torch's pinning thread calls."""
        return self.unpack().pin_memory()


@dataclass(frozen=True)
class Request:
    """A batch to prepare.

    Attributes:
        draws: its samples.
        partners: for each the draw that may be mixed in.
        slot: where to leave the features.
    """

    draws: Draws
    partners: Draws | None
    slot: int | None = None


@dataclass(frozen=True)
class Prepare(Dataset[Any]):
    """Requests to batches.

    Attributes:
        slots: memory shared with the training process; None where there is none.
    """

    reader: SampleReader
    features: Features
    settings: DataSettings
    tokenizer: Any
    slots: Slots | None = None

    def __getitem__(self, request: Request) -> Packed | InputError:
        try:
            return self.packed(request)
        except InputError as error:
            return error  # an exception would reach the user with a worker's traceback around it

    def packed(self, request: Request) -> Packed:
        """The batch of a request.

        Raises:
            InputError: a sample is damaged, and the settings allow no failure.
        """
        draws, failures = request.draws, []
        most = max((self._segments(draws, place) for place in range(len(draws))), default=1)
        features, lent = self._room(request.slot, (len(draws), most, *self._shape))
        lengths = torch.zeros(len(draws), most, dtype=torch.int64)
        valid = np.ones(len(draws), dtype=bool)
        waves = self._waves(request)
        seeds = torch.from_numpy(segment_seeds(draws.seeds, most))
        for place in range(len(draws)):
            try:
                wave = waves(place)
            except InputError as error:
                if self.settings.max_failures == 0:
                    raise
                failures.append(str(error))
                valid[place] = False
                wave = np.zeros(self.reader.length(draws, place), np.float32)
            self._write(wave, seeds[place], features[place], lengths[place])
        on_device = self.settings.spectrogram == "device"
        frames = lengths if on_device else self.features.frames(lengths)
        tokens, token_mask = self._tokens(draws.texts)
        ids = {name: getattr(draws, name).copy() for name in ("clip", "caption", "group", "kin", "seeds")}
        tensors = {"frames": frames, "tokens": tokens, "token_mask": token_mask}
        return Packed(
            features=features if lent is None else lent,
            arrays={name: tensor.numpy() for name, tensor in tensors.items()} | ids | {"valid": valid},
            lists={"keys": draws.keys, "texts": draws.texts, "failures": failures},
        )

    def floats_a_clip(self) -> int:
        """Numbers in the features of the longest clip."""
        seconds = min(self.settings.crop_s, self.reader.max_s)
        segments = len(self.features.audio.segment_lengths(max(1, round(seconds * self.reader.rate))))
        return segments * math.prod(self._shape)

    def _room(self, slot: int | None, shape: tuple[int, ...]) -> tuple[Tensor, Lent | None]:
        return (torch.empty(shape), None) if self.slots is None else self.slots.fill(slot, shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of one segment: features, or the samples from which a device computes them."""
        return (self.features.audio.segment,) if self.settings.spectrogram == "device" else self.features.shape

    def _segments(self, draws: Draws, place: int) -> int:
        return len(self.features.audio.segment_lengths(self.reader.length(draws, place)))

    def _waves(self, request: Request) -> ReadWave:
        """A function from a place in the batch to the wave that is heard there."""
        read = self.reader.start(request.draws)
        if not self.features.train:
            return read
        settings, rate = self.settings.augment, self.reader.rate
        seeds = request.draws.seeds.tolist()
        shares = [0.0 if request.partners is None else mixup_share(seed, settings) for seed in seeds]
        mixed = np.flatnonzero(shares)
        read_partner: ReadWave | None = None
        if request.partners is not None and len(mixed):
            read_partner = self.reader.start(request.partners.take(mixed))

        def wave(place: int) -> Wave:
            heard = augment(read(place), rate, seeds[place], settings)
            if read_partner is None or not shares[place]:
                return heard
            return mixup(heard, read_partner(int(np.searchsorted(mixed, place))), shares[place])

        return wave

    def _write(self, wave: Wave, seeds: Tensor, features: Tensor, lengths: Tensor) -> None:
        """Fill one clip's ``features [S, ...]`` and ``lengths [S]`` (samples of sound); the rest is zero."""
        sound = torch.from_numpy(self.features.audio.segment_lengths(len(wave)))
        segments = torch.from_numpy(self.features.audio.cut(wave))
        count = len(sound)
        lengths[:count] = sound
        features[count:] = 0
        if self.settings.spectrogram == "device":
            features[:count] = segments
        else:
            self.features(segments, sound, seeds[:count], out=features[:count])

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool)
        return tokenise(self.tokenizer, texts, self.settings)
