"""What an encoder is, and the encoders that a recipe can name.

An audio encoder turns segments of features into one vector a segment and one a patch; a text encoder
turns tokens into one vector a token and one a caption.  Input rate, front end, longest input and pooling belong
to the encoder, not to the user.  A new encoder is one file with a settings dataclass and a ``build`` function, and
one line below; an encoder outside of Earshot is one file that the recipe names (see `outside.py`).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sharding.common.errors import InputError
from training.models.encoders.outside import OutsideModule, is_outside
from training.models.encoders.pooling import Pooling, pool


@dataclass(frozen=True)
class EncodedAudio:
    """A batch of clips as the heads see it; masks are True where there is sound.

    Attributes:
        segments: ``[b, S, d]``, one vector a segment; zero where the whole segment is padding.
        segment_mask: ``[b, S]`` bool.
        tokens: ``[b, S * P, d]``, one vector a patch, or None where the head does not ask for them.
        token_mask: ``[b, S * P]`` bool, or None.
    """

    segments: Tensor
    segment_mask: Tensor
    tokens: Tensor | None = None
    token_mask: Tensor | None = None


@dataclass(frozen=True)
class EncodedText:
    """A batch of captions as the heads see it.

    Attributes:
        tokens: ``[b, N, d]``, one vector a token.
        token_mask: ``[b, N]`` bool, True at real tokens.
        pooled: ``[b, d]``, one vector a caption as the encoder was trained to give it; None: the first token's.
    """

    tokens: Tensor
    token_mask: Tensor
    pooled: Tensor | None = None


class Encoder(nn.Module, ABC):
    """What both kinds of encoder have in common: a width, and blocks that can be frozen."""

    dim: int

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, lowest first."""

    def top(self) -> list[nn.Module]:
        """Modules above the last block, e.g. the final norm: never frozen by depth."""
        return []

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Every parameter and its depth: 0 below the blocks, 1 to L in them, L + 1 above."""
        blocks = self.blocks()
        depth_of = {id(p): number for number, block in enumerate(blocks, 1) for p in block.parameters()}
        depth_of |= {id(p): len(blocks) + 1 for module in self.top() for p in module.parameters()}
        for parameter in self.parameters():
            yield parameter, depth_of.get(id(parameter), 0)

    def freeze_below(self, block: int) -> None:
        """Freeze the embedding and blocks ``0 .. block - 1`` (papers/001 section 4 trains 8-11 of 12).

        Autograd keeps no activations below the lowest trained parameter.
        """
        if not 0 <= block <= len(self.blocks()):
            raise InputError(
                "freeze_below counts blocks from 0",
                value=block,
                remedy=f"this encoder has {len(self.blocks())} blocks",
            )
        for parameter, depth in self.depths():
            if block and depth <= block:
                parameter.requires_grad_(False)


class AudioEncoder(Encoder):
    """Segments of features in, one vector a segment and one a patch out.

    Attributes:
        front_end: name of the spectrogram front end (``training.data.spectrogram.FRONT_ENDS``).
        segment_s: seconds of one segment, the longest input the encoder was made for.
        hop_s: seconds from one segment's start to the next one's.
        max_s: seconds of a clip beyond which nothing is encoded.
        dim: width of the vectors.
    """

    front_end: str
    segment_s: float
    hop_s: float
    max_s: float

    @abstractmethod
    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode segments.

        Args:
            features: ``[n, F, T]`` float.
            frames: ``[n]`` int64, how many of the T frames are sound; at least 1.
            seeds: ``[n]`` int64, from which all randomness but dropout is drawn, segment by segment.

        Returns:
            pooled ``[n, d]``, patch tokens ``[n, P, d]`` and their mask ``[n, P]`` (True: sound).
        """


class TextEncoder(Encoder):
    """Tokens in, one vector a token out.

    Attributes:
        tokenizer: a transformers tokenizer.
        pooling: how the encoder was trained to make one vector of a caption.
        max_tokens: the longest caption that the encoder can read; None: any.
        dim: width of the vectors.
    """

    tokenizer: Any
    max_tokens: int | None
    pooling: Pooling = "first"

    @abstractmethod
    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """``tokens [b, N]`` int64 and ``token_mask [b, N]`` bool to ``[b, N, d]``."""

    def encode(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        """Everything that heads may ask of captions: ``tokens [b, N]`` and ``token_mask [b, N]`` encoded."""
        vectors = self(tokens, token_mask)
        return EncodedText(vectors, token_mask, pool(self.pooling, vectors, token_mask))


# A module has `Settings` (a frozen dataclass whose first field is `encoder`) and `build`:
# audio: build(settings) -> AudioEncoder; text: build(settings, captions) -> TextEncoder, where the captions
# are those that a tokenizer is trained on when the settings name none.
AUDIO_ENCODERS: dict[str, str] = {
    "ast": "training.models.encoders.audio.ast",
    "clap": "training.models.encoders.audio.clap",
    "data2vec": "training.models.encoders.audio.data2vec",
    "passt": "training.models.encoders.audio.passt",
    "whisper": "training.models.encoders.audio.whisper",
}
TEXT_ENCODERS: dict[str, str] = {
    "bge": "training.models.encoders.text.bge",
    "clip-text": "training.models.encoders.text.clip_text",
    "deberta-v3": "training.models.encoders.text.deberta",
    "gtr-t5": "training.models.encoders.text.gtr_t5",
    "modernbert": "training.models.encoders.text.modernbert",
    "mpnet": "training.models.encoders.text.mpnet",
    "roberta": "training.models.encoders.text.roberta",
}


def encoder_module(registry: Mapping[str, str], name: str) -> Any:
    """The module of a registered encoder, or what stands for it where ``name`` is ``FILE.py:CLASS``.

    An unknown name is an ``InputError`` that lists the known ones.
    """
    if is_outside(name):
        return OutsideModule(name, AudioEncoder if registry is AUDIO_ENCODERS else TextEncoder)
    if name not in registry:
        remedy = "one of " + ", ".join(sorted(registry)) + ", or FILE.py:CLASS for your own"
        raise InputError("unknown encoder", value=name, remedy=remedy)
    return importlib.import_module(registry[name])
