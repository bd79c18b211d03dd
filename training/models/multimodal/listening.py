"""The audio encoder of a multimodal model: an audio tower whose tokens the language model reads.

A clip becomes the prompt *sound, "Summarize above audio in one word:"*, and its embedding is the last hidden state, as
for a text.  The tokens of the encoder are the hidden states at the tokens of the sound, so heads with attention work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import check_multiple, check_positive
from training.models.encoders import AudioEncoder, TextEncoder
from training.models.encoders.audio.whisper import (
    ARCHITECTURE,
    FRONT_ENDS,
    LONGEST_S,
    POSITIONS_A_SECOND,
    cut_positions,
)
from training.models.encoders.published import random_model
from training.models.multimodal.language import LanguageModel, last_of
from training.models.multimodal.prompts import OF_AUDIO, OF_BOTH, sound_marks
from training.models.multimodal.sources import load_part
from training.models.multimodal.towers import PARTS, TOWERS, Tower


@dataclass(frozen=True)
class Settings:
    """Settings of the audio tower.

    Attributes:
        encoder: the name of the encoder.
        source: Whisper, or a multimodal model with an audio tower: a name on the Hugging Face hub, a local folder, or
            ``random`` for Whisper's encoder with the sizes given here.
        max_s: the most seconds of a clip that are encoded.
        segment_s: seconds of one segment; None: as much as the tower reads, or ``max_s``.  A clip of several segments
            has an embedding for each of them.  Less than Whisper's 30 s saves time where all clips are short.
        join: how many tokens of a Whisper encoder become one for the language model; 8 leave 6.25 a second.
        bins, width, depth, heads: sizes of ``random``; bins of the mel spectrogram are 80 or 128.
    """

    encoder: str = "multimodal"
    source: str = "Qwen/Qwen2.5-Omni-3B"
    max_s: float = 30.0
    segment_s: float | None = None
    join: int = 8
    bins: int = 80
    width: int = 384
    depth: int = 4
    heads: int = 6

    def __post_init__(self) -> None:
        check_positive(self, "max_s", "segment_s", "join", "depth")
        check_multiple(self, "width")


class Projector(nn.Module):
    """``join`` neighbouring tokens of a tower as one token of the language model: two layers with GELU between."""

    def __init__(self, width: int, join: int, dim: int) -> None:
        super().__init__()
        self.join = join
        self.layers = nn.Sequential(nn.Linear(width * join, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens [n, A, d]`` and ``mask [n, A]`` to ``[n, ceil(A / join), dim]`` and their mask."""
        short = -tokens.shape[1] % self.join
        tokens = nn.functional.pad(tokens * mask[..., None], (0, 0, 0, short))
        mask = nn.functional.pad(mask, (0, short))
        return self.layers(tokens.unflatten(1, (-1, self.join)).flatten(2)), mask.unflatten(1, (-1, self.join)).any(2)


class Listener(AudioEncoder):
    """An audio tower, and the language model of the text encoder, which it only borrows.

    The parameters of the language model belong to the text encoder and have its names.
    """

    reads_with_text = True

    def __init__(self, tower: Tower, settings: Settings) -> None:
        super().__init__()
        self.net, self.tower, self.join = tower.net, tower, settings.join
        if tower.bins not in FRONT_ENDS:
            raise InputError("no front end computes so many mel bins", file=settings.source, value=tower.bins)
        self.front_end = FRONT_ENDS[tower.bins]
        self.max_s = settings.max_s
        self.segment_s = tower.seconds or settings.segment_s or settings.max_s
        self.hop_s = self.segment_s
        self.projector: nn.Module | None = None
        self._language: tuple[LanguageModel, ...] = ()  # a tuple, so that its parameters are not registered here too

    def connect(self, text: TextEncoder) -> None:
        if not isinstance(text, LanguageModel):
            raise InputError(
                "the audio encoder multimodal needs a language model to read its tokens",
                remedy="set text.encoder to multimodal too",
            )
        self._language, self.dim = (text,), text.dim
        if not self.tower.projected:
            self.projector = Projector(self.tower.dim, self.join, text.dim)
        elif self.tower.dim != text.dim:
            remedy = "name the same model as audio.source and as text.source"
            widths = (self.tower.dim, text.dim)
            raise InputError("the language model does not read the tokens of this tower", value=widths, remedy=remedy)
        start, end = sound_marks(text.tokenizer.plain)
        before, after = text.chat
        self.before = tuple(text.numbers(before + start))
        self.after = tuple(text.numbers(end + OF_AUDIO + after))

    @property
    def language(self) -> LanguageModel:
        """The language model that reads the tokens."""
        return self._language[0]

    def blocks(self) -> list[nn.Module]:
        return self.tower.blocks()

    def top(self) -> list[nn.Module]:
        return self.tower.top() + self.beside_adapters()

    def beside_adapters(self) -> list[nn.Module]:
        return [] if self.projector is None else [self.projector]

    def listen(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens ``[n, A, dim]`` that the language model reads, and their mask ``[n, A]``."""
        tokens, mask = self.tower.hear(features, frames)
        return (tokens, mask) if self.projector is None else self.projector(tokens, mask)

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._read(features, frames, self.after)

    def together(self, features: Tensor, frames: Tensor, text: str) -> tuple[Tensor, Tensor, Tensor]:
        """Like `forward`, for sounds that are summed up together with a text (AuroLA's prompt for both)."""
        _, end = sound_marks(self.language.tokenizer.plain)
        _, after = self.language.chat
        return self._read(features, frames, self.language.numbers(end + text + OF_BOTH + after))

    def _read(self, features: Tensor, frames: Tensor, ending: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the language model for sounds between the prompts `before` and ``ending``."""
        sound, heard = self.listen(features, frames)
        ends = self.language.embed(torch.tensor([[*self.before, *ending]], device=sound.device))
        start, end = ends.expand(len(sound), -1, -1).split((len(self.before), len(ending)), 1)
        every = heard.new_ones(len(sound), ends.shape[1])
        embedded, mask = packed(
            (start, every[:, : start.shape[1]]), (sound.to(ends.dtype), heard), (end, every[:, : end.shape[1]])
        )
        states = self.language.hidden(embedded, mask)
        tokens = states[:, len(self.before) :][:, : sound.shape[1]]
        tokens = nn.functional.pad(tokens, (0, 0, 0, sound.shape[1] - tokens.shape[1]))
        own = torch.arange(sound.shape[1], device=heard.device) < heard.sum(1, keepdim=True)
        return last_of(states, mask), tokens, own


def packed(*pieces: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pieces of sequences one after the other, without the padding inside.

    Args:
        pieces: each ``[n, L_i, d]`` with its mask ``[n, L_i]``.

    Returns:
        ``[n, L, d]``, padded on the right, and the mask ``[n, L]``.
    """
    vectors, mask = torch.cat([piece for piece, _ in pieces], 1), torch.cat([own for _, own in pieces], 1)
    order = (~mask).byte().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[-1])), mask.gather(1, order)


def build(settings: Settings) -> Listener:
    """The audio encoder that ``settings`` describes, published or random; it still has to be connected."""
    if settings.source == "random":
        sizes = {
            "num_mel_bins": settings.bins,
            "d_model": settings.width,
            "encoder_layers": settings.depth,
            "encoder_attention_heads": settings.heads,
            "encoder_ffn_dim": 4 * settings.width,
            "max_source_positions": round((settings.segment_s or LONGEST_S) * POSITIONS_A_SECOND),
        }
        net = random_model(ARCHITECTURE, sizes | PARTS["whisper"].changes)
    else:
        net = load_part(PARTS, settings.source, "audio tower")
        if settings.segment_s is not None and hasattr(net, "embed_positions"):  # a Whisper encoder, by itself
            cut_positions(net, settings.segment_s, settings.source)
    return Listener(TOWERS[type(net).__name__](net), settings)
