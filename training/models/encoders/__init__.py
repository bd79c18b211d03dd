"""What an encoder is, and the encoders that a recipe can name.

An audio encoder turns segments of features into one vector for each segment and one for each patch.  A text encoder
turns tokens into one vector for each token and one for each caption.  The sample rate, the front end, the longest input
and the pooling follow from the encoder, so that no recipe can set them wrongly.

To add an encoder, write a settings dataclass and a ``build`` function, and add one line to the tables below.  A user's
own encoder is one file that the recipe names; see `outside.py`.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sharding.common.errors import InputError
from training.models.encoders.outside import OutsideModule, is_outside
from training.models.encoders.pooling import Pooling, pool

Place = Literal["before", "after"]  # of the positions: where embeddings enter a text encoder


@dataclass(frozen=True)
class EncodedAudio:
    """A batch of encoded clips, the input of a head; masks are True where there is sound.

    Attributes:
        segments: ``[b, S, d]``, one vector for each segment; zero where the whole segment is padding.
        segment_mask: ``[b, S]`` bool.
        tokens: ``[b, S * P, d]``, one vector for each patch, or None if the head does not use them.
        token_mask: ``[b, S * P]`` bool, or None.
    """

    segments: Tensor
    segment_mask: Tensor
    tokens: Tensor | None = None
    token_mask: Tensor | None = None


@dataclass(frozen=True)
class EncodedText:
    """A batch of encoded captions, the input of a head.

    Attributes:
        tokens: ``[b, N, d]``, one vector for each token.
        token_mask: ``[b, N]`` bool, True at tokens, False at padding.
        pooled: ``[b, d]``, one vector for each caption, pooled as the encoder was trained; None: the first token's.
    """

    tokens: Tensor
    token_mask: Tensor
    pooled: Tensor | None = None


class Encoder(nn.Module, ABC):
    """A stack of blocks with vectors of ``dim`` numbers; the lower blocks can be frozen."""

    dim: int

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, lowest first."""

    def top(self) -> list[nn.Module]:
        """The modules above the last block, such as the final norm; they are never frozen by depth."""
        return []

    def beside_adapters(self) -> list[nn.Module]:
        """The modules that are trained as a whole although the encoder has adapters, such as new modules."""
        return []

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Every parameter and its depth: 0 below the blocks, 1 to L in the L blocks, L + 1 above them."""
        blocks = self.blocks()
        depth_of = {id(p): number for number, block in enumerate(blocks, 1) for p in block.parameters()}
        depth_of |= {id(p): len(blocks) + 1 for module in self.top() for p in module.parameters()}
        for parameter in self.parameters():
            yield parameter, depth_of.get(id(parameter), 0)

    def freeze_below(self, block: int) -> None:
        """Freeze the embedding and the blocks ``0 .. block - 1``.

        Autograd keeps no activations below the lowest trained parameter.  Filomeno et al. 2025, section 4,
        train blocks 8 to 11 of 12.
        """
        if not 0 <= block <= len(self.blocks()):
            raise InputError(
                "freeze_below is not the number of a block",
                value=block,
                remedy=f"this encoder has {len(self.blocks())} blocks, which are counted from 0",
            )
        for parameter, depth in self.depths():
            if block and depth <= block:
                parameter.requires_grad_(False)


class AudioEncoder(Encoder):
    """Turns segments of features into one vector for each segment and one for each patch.

    Attributes:
        front_end: name of the spectrogram front end (``training.data.sound.spectrogram.FRONT_ENDS``).
        segment_s: seconds of one segment, the longest input that the encoder was trained on.
        hop_s: seconds from the start of one segment to the start of the next one.
        max_s: the most seconds of a clip that are encoded.
        dim: width of the vectors.
        reads_with_text: whether the vectors also depend on weights of the text encoder (see `connect`).
    """

    reads_with_text: bool = False

    front_end: str
    segment_s: float
    hop_s: float
    max_s: float

    def connect(self, text: TextEncoder) -> None:
        """Called once with the text encoder of the same model, before adapters are added; most need nothing of it."""

    @abstractmethod
    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode segments.

        Args:
            features: ``[n, F, T]`` float.
            frames: ``[n]`` int64, how many of the T frames hold sound; at least 1.
            seeds: ``[n]`` int64, one for each segment; every random choice but dropout follows from it.

        Returns:
            the pooled vectors ``[n, d]``, the patch tokens ``[n, P, d]`` and their mask ``[n, P]`` (True: sound).
        """


class TextEncoder(Encoder):
    """Turns the tokens of captions into one vector for each token.

    Attributes:
        tokenizer: a transformers tokenizer.
        pooling: how the encoder was trained to make one vector of a caption.
        max_tokens: the longest caption that the encoder can read; None: there is no limit.
        dim: width of the vectors.
    """

    tokenizer: Any
    max_tokens: int | None
    pooling: Pooling = "first"

    @abstractmethod
    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Vectors ``[b, N, d]`` of ``tokens [b, N]`` int64 with their ``token_mask [b, N]`` bool."""

    def encode(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        """Encode captions for a head, from ``tokens [b, N]`` and ``token_mask [b, N]``."""
        vectors = self(tokens, token_mask)
        return EncodedText(vectors, token_mask, pool(self.pooling, vectors, token_mask))

    def embedding(self, place: Place) -> nn.Module:
        """The module whose output ``[b, N, dim]`` may be replaced by vectors that no token has.

        Args:
            place: "before" the encoder adds its positions: the table of token embeddings; or "after" that.

        Raises:
            InputError: the encoder has no such place.
        """
        raise InputError(
            "the text encoder takes tokens alone, and no embeddings in their place",
            value=type(self).__name__,
            remedy="override TextEncoder.embedding, or name an encoder of transformers",
        )


# The name of an encoder in recipes, and where it is: a module, or an object in a module.  It has `Settings` (a frozen
# dataclass whose first field is `encoder`) and `build`: for audio build(settings) -> AudioEncoder, for text
# build(settings, captions) -> TextEncoder.  A tokenizer is trained on the captions where the settings name none.
AUDIO_ENCODERS: dict[str, str] = {
    "ast": "training.models.encoders.audio.ast",
    "clap": "training.models.encoders.audio.clap",
    "data2vec": "training.models.encoders.audio.data2vec",
    "multimodal": "training.models.multimodal.listening",
    "passt": "training.models.encoders.audio.passt",
    "whisper": "training.models.encoders.audio.whisper",
}
TEXT_ENCODERS: dict[str, str] = {
    "bert": "training.models.encoders.text.families:BERT",
    "bge": "training.models.encoders.text.families:BGE",
    "clap-text": "training.models.encoders.text.families:CLAP_TEXT",
    "clip": "training.models.encoders.text.families:CLIP",
    "clip-text": "training.models.encoders.text.families:CLIP_TEXT",
    "deberta-v3": "training.models.encoders.text.families:DEBERTA_V3",
    "gtr-t5": "training.models.encoders.text.families:GTR_T5",
    "modernbert": "training.models.encoders.text.families:MODERNBERT",
    "multimodal": "training.models.multimodal.language",
    "mpnet": "training.models.encoders.text.families:MPNET",
    "roberta": "training.models.encoders.text.families:ROBERTA",
}


def encoder_module(registry: Mapping[str, str], name: str) -> Any:
    """The `Settings` and `build` of an encoder in a table above, or of a user's own, ``FILE.py:CLASS``.

    An unknown name is an ``InputError`` that lists the known ones.
    """
    if is_outside(name):
        return OutsideModule(name, AudioEncoder if registry is AUDIO_ENCODERS else TextEncoder)
    if name not in registry:
        remedy = "one of " + ", ".join(sorted(registry)) + ", or FILE.py:CLASS for your own"
        raise InputError("unknown encoder", value=name, remedy=remedy)
    return pkgutil.resolve_name(registry[name])
