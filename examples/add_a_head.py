"""A new way to score captions against clips: one file and one registry line.

The head compares a caption's vector with every segment of a clip and takes the best one, so that a caption may speak of
one moment.  Inside Earshot the registry line stands in ``training/models/heads/__init__.py``; here `main` adds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import HEADS, build_head
from training.models.heads.base import Head, Side
from training.models.heads.pooling import text_pool


@dataclass(frozen=True)
class Settings:
    """Settings of the head.  ``name`` is its key in the registry, ``dim`` the width of the shared space."""

    name: str = "best-segment"
    dim: int = 256


class BestSegment(Head):
    """The score of a pair is the cosine of the caption and the clip's most similar segment."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.audio, self.text = nn.Linear(audio_dim, settings.dim), nn.Linear(text_dim, settings.dim)

    def text_side(self, text: EncodedText) -> Side:
        """Unit vectors ``[b, dim]``."""
        return (F.normalize(self.text(text_pool("encoder", text)), dim=-1),)

    def audio_side(self, audio: EncodedAudio) -> Side:
        """Unit vectors ``[b, S, dim]`` and their mask ``[b, S]``."""
        vectors, mask = self.vectors(audio)
        return F.normalize(self.audio(vectors), dim=-1), mask

    def pair_scores(self, text: Side, audio: Side, shared: Side) -> Tensor:
        """``[texts, audios]``: the tiled loss calls this for some texts and some audios at a time."""
        scores = torch.einsum("rd,csd->rcs", text[0], audio[0])
        return scores.masked_fill(~audio[1][None], -torch.inf).amax(-1)

    def pair_elements(self, text: Side, audio: Side) -> int:
        """About how many numbers a pair needs, from which the size of tiles follows."""
        return 2 * audio[0].shape[1]


def build(settings: Settings, audio_dim: int, text_dim: int) -> BestSegment:
    """The head for encoders of these widths."""
    return BestSegment(settings, audio_dim, text_dim)


def main() -> Tensor:
    """Register the head, and score three captions against two clips of two and one segments."""
    HEADS["best-segment"] = __name__
    torch.manual_seed(0)
    head = build_head(Settings(dim=16), audio_dim=8, text_dim=12)
    audio = EncodedAudio(torch.randn(2, 2, 8), torch.tensor([[True, True], [True, False]]))
    text = EncodedText(torch.randn(3, 4, 12), torch.ones(3, 4, dtype=torch.bool), torch.randn(3, 12))
    scores = head.score(head(text), head(audio))
    print(scores)
    return scores


if __name__ == "__main__":
    main()
