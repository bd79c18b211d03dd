"""What a head is: it turns encoded clips and captions into sides, and scores sides against each other."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText

Side = tuple[Tensor, ...]
SHORTEST = 1e-12  # length that a vector is divided by at least, as in torch.nn.functional.normalize
SHORTEST_SQUARED = 1e-16  # of a vector's length squared, as in torch.nn.functional.cosine_similarity


def rows_of(side: Side, rows: slice | Tensor) -> Side:
    """A subset of the texts or audios of a side."""
    return tuple(tensor[rows] for tensor in side)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1, in float32 at least: bfloat16 would move logits of 1 / tau = 20 by 0.1."""
    return F.normalize(vectors.to(accumulation_dtype(vectors.dtype)), dim=-1)


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast: for products whose rounding to bfloat16 would show in scores divided by tau."""
    return torch.autocast(tensor.device.type, enabled=False)


class Scorer(Protocol):
    """What a loss over tiles needs: scores of rows against columns.  Every head is a scorer of texts against audios."""

    def shared(self) -> Side:
        """What scoring needs besides the sides, in the graph of the scorer's parameters; see `Head.shared`."""

    def pair_scores(self, rows: Side, columns: Side, shared: Side, /) -> Tensor:
        """Similarities ``[rows, columns]``, differentiable in every argument; see `Head.pair_scores`."""

    def pair_elements(self, rows: Side, columns: Side, /) -> int:
        """About how many numbers `pair_scores` and its gradient hold for one pair; decides tile sizes."""


class DotProduct:
    """The scorer of one vector against one vector."""

    def shared(self) -> Side:
        return ()

    def pair_scores(self, rows: Side, columns: Side, shared: Side, /) -> Tensor:
        return rows[0] @ columns[0].t()

    def pair_elements(self, rows: Side, columns: Side, /) -> int:
        return 1


class Whole(nn.Module):
    """An ordinary module that tiles can call as a function of its weights.

    Tiles must not touch parameters: under ZeRO-3 they are whole only inside a forward that DeepSpeed knows, and the
    tiled loss computes tiles a second time in its backward pass.  So `forward` gives the weights, in the graph
    of the parameters, and `call` runs the module on them.

    Args:
        module: what to call; its parameters are this module's.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._names = tuple(name for name, _ in module.named_parameters())
        # The same structure without values and without the hooks that DeepSpeed adds to registered modules.
        self._pattern = (_Methods(copy.deepcopy(module).to("meta")),)

    def forward(self) -> Side:
        """Copies of the weights, in the graph of the parameters."""
        return tuple(parameter.clone() for parameter in self.module.parameters())

    def call(self, weights: Side, *inputs: Any, method: str = "forward") -> Tensor:
        """The module's ``method`` on ``inputs``, with these weights in place of its parameters."""
        named = {f"module.{name}": weight for name, weight in zip(self._names, weights, strict=True)}
        result: Tensor = functional_call(self._pattern[0], named, (method, *inputs))
        return result


class _Methods(nn.Module):
    """Any method of a module as a forward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *inputs: Any) -> Tensor:
        result: Tensor = getattr(self.module, method)(*inputs)
        return result


class Head(nn.Module, ABC):
    """A way to score every text against every audio.

    All that belongs to one clip or one caption is computed once, in `audio_side` and `text_side`; what is
    left for each pair is `pair_scores`.  That is a function of tensors alone: parameters that it needs come
    as `shared` tensors, so that sharded parameters (ZeRO-3) are never touched inside a tile.  Modules'
    parameters are read only inside those modules' forward, where DeepSpeed has made them whole.

    Attributes:
        uses_patches: whether `audio_side` needs `EncodedAudio.tokens`.
        uses_words: whether `text_side` needs `EncodedText.tokens`, or `EncodedText.pooled` is enough.
        global_batch: clips that each caption meets in training, over all ranks; 0: not known.  It may decide how scores
            are computed, but not what they are.
    """

    uses_patches: bool = False
    uses_words: bool = True
    global_batch: int = 0

    @abstractmethod
    def audio_side(self, audio: EncodedAudio) -> Side:
        """What scoring needs of each clip: tensors ``[b, ...]``."""

    @abstractmethod
    def text_side(self, text: EncodedText) -> Side:
        """What scoring needs of each caption: tensors ``[b, ...]``."""

    def vectors(self, audio: EncodedAudio) -> tuple[Tensor, Tensor]:
        """The patches or the segments of each clip, ``[b, M, d]`` with zeros on padding, and their mask."""
        vectors, mask = audio.segments, audio.segment_mask
        if self.uses_patches:
            assert audio.tokens is not None and audio.token_mask is not None
            vectors, mask = audio.tokens, audio.token_mask
        return vectors.masked_fill(~mask[..., None], 0), mask

    def words(self, text: EncodedText) -> tuple[Tensor, Tensor]:
        """The tokens of each caption, ``[b, N, d]`` with zeros on padding, and their mask."""
        return text.tokens.masked_fill(~text.token_mask[..., None], 0), text.token_mask

    def shared(self) -> Side:
        """What scoring needs besides the sides, in the graph of the head's parameters."""
        return ()

    @abstractmethod
    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Similarities ``[texts, audios]`` before temperature, differentiable in every argument."""

    def pair_elements(self, text: Side, audio: Side) -> int:
        """About how many numbers `pair_scores` and its gradient hold for one pair; decides tile sizes."""
        return 1

    def score(self, text: Side, audio: Side) -> Tensor:
        """Similarities ``[texts, audios]`` before temperature, all at once; `tiled.score_all` has them tile by tile."""
        return self.pair_scores(text, audio, self.shared())

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor] | None:
        """Vectors ``[texts, k]`` and ``[audios, k]`` whose dot products are near the scores, or None.

        Each comes from what belongs to one caption or one clip alone, so that the first candidates of a query are
        found by one product of matrices; see `training.evaluation.two_stage`.
        """
        return None

    def embedding(self, side: Side) -> Tensor | None:
        """``[b, d]`` vectors whose dot products are the scores, or None if the head has none."""
        return None

    def forward(self, encoded: EncodedAudio | EncodedText) -> Side:
        """The side of encoded clips or captions."""
        return self.audio_side(encoded) if isinstance(encoded, EncodedAudio) else self.text_side(encoded)


def rough_scores(head: Head, text: Side, audio: Side, shared: Side) -> Tensor | None:
    """Dot products of the first stage, ``[texts, audios]`` float64, or None if the head has none."""
    vectors = head.first_stage(text, audio, shared)
    return None if vectors is None else vectors[0].double() @ vectors[1].double().t()


class ListedHead(Head):
    """A head that can also score a list of pairs, for training on some of them: `training.objectives.pairs.candidates`.

    Attributes:
        candidates: negatives that each caption and each clip meets in training; 0: all.
    """

    candidates: int = 0

    @abstractmethod
    def listed_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """Similarities ``[p]`` of p texts and p audios, the first with the first, and so on."""


class VectorHead(Head):
    """A head whose sides are one vector each: the score is their dot product."""

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        return text[0] @ audio[0].t()

    def first_stage(self, text: Side, audio: Side, shared: Side) -> tuple[Tensor, Tensor]:
        """The embeddings: the first stage is exact."""
        return text[0], audio[0]

    def embedding(self, side: Side) -> Tensor | None:
        return side[0]
