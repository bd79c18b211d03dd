"""A rank's part of a global batch, as named columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """Named columns, each a tensor or a list with one entry for each sample.

    A task defines the columns that it reads as a frozen dataclass of this kind.  The engine knows only what is here.

    Attributes:
        clip, caption, group, kin: ``[b]`` int64, stable ids.
        seeds: ``[b]`` int64, the seed of what the model draws at random for each sample.
        valid: ``[b]`` bool; False: the sample is damaged and must not count in the loss.
        keys: the names of the ``b`` samples.
        failures: one description of each damaged sample; the only list that is not a column.
        name_part: what these samples add to the name of the global batch; see `sampling.order.batch_name`.
    """

    not_columns: ClassVar[tuple[str, ...]] = ("failures",)

    clip: Tensor
    caption: Tensor
    group: Tensor
    kin: Tensor
    seeds: Tensor
    valid: Tensor
    keys: list[str]
    failures: list[str]
    name_part: int

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """The batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, from which it is copied to a GPU while the GPU computes."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def take(self, chosen: slice | Tensor) -> Self:
        """Some samples of the batch; ``chosen`` is a slice, or ``[b]`` bool."""
        kept = torch.arange(len(self))[chosen.cpu() if isinstance(chosen, Tensor) else chosen].tolist()
        if len(kept) == len(self):
            return self
        changed: dict[str, Any] = {}
        for name, value in self._columns().items():
            changed[name] = value[chosen] if isinstance(value, Tensor) else [value[place] for place in kept]
        return replace(self, **changed)

    def placeholder(self) -> Self:
        """One sample of nothing, shaped like the batch's, for a rank that has no samples."""
        changed: dict[str, Any] = {}
        for name, value in self._columns().items():
            if isinstance(value, Tensor):
                changed[name] = value.new_zeros((1, *value.shape[1:]))
            else:
                changed[name] = [type(value[0])()] if value else [""]
        return replace(self, **changed)

    def _columns(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in self.not_columns}
        return {name: value for name, value in values.items() if isinstance(value, Tensor | list)}

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        columns = self._columns()
        changed: dict[str, Any] = {n: change(value) for n, value in columns.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Batch(Columns):
    """Clips with a caption each.

    Attributes:
        features: ``[b, S, F, T]`` float32, S segments of each clip.
        frames: ``[b, S]`` int64, how many frames of a segment hold sound; 0: the whole segment is padding.
        tokens: ``[b, N]`` int64; token_mask: ``[b, N]`` bool.
        tags: ``[b, w]`` int64, the sets of tags of the clips as words; see `training.data.tags`.
        heard_s: ``[b, 2]`` float64, where in its recording each sample begins and ends, in seconds.
        texts: the captions of the ``b`` samples.
        labels: the labels of each clip, in the order of the manifest.
    """

    features: Tensor
    frames: Tensor
    tokens: Tensor
    token_mask: Tensor
    tags: Tensor
    heard_s: Tensor
    texts: list[str]
    labels: list[list[str]]

    def placeholder(self) -> Self:
        """One segment of silence with one token."""
        empty = super().placeholder()
        empty.frames[:, 0] = 1
        empty.token_mask[:, 0] = True
        return empty


@dataclass(frozen=True)
class EncodedBatch(Batch):
    """Clips with a caption each, of which one or both were encoded before, because their encoder is frozen.

    What is None here, the model encodes: from `features` or from `tokens`.

    Attributes:
        segments: ``[b, S, d]``, one vector for each segment; segment_mask: ``[b, S]`` bool.
        patches: ``[b, P, d]``, one vector for each patch, where the head uses them; patch_mask: ``[b, P]`` bool.
        sentence: ``[b, d]``, one vector for each caption.
        words: ``[b, N, d]``, one vector for each token, where the head uses them; word_mask: ``[b, N]`` bool.
    """

    segments: Tensor | None = None
    segment_mask: Tensor | None = None
    patches: Tensor | None = None
    patch_mask: Tensor | None = None
    sentence: Tensor | None = None
    words: Tensor | None = None
    word_mask: Tensor | None = None

    def placeholder(self) -> Self:
        """One segment of nothing with one token."""
        empty = super().placeholder()
        for mask in (empty.segment_mask, empty.patch_mask, empty.word_mask):
            if mask is not None:
                mask[:, 0] = True
        return empty
