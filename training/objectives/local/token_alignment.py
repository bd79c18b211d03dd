"""A loss between two sets of token vectors: every word should be heard somewhere in the clip.

For a caption with token vectors ``t_i`` and a clip with token vectors ``a_j``, projected to the width of the text,

    L = sum over the caption's tokens i of  ( 1 - max over the clip's tokens j of cos(t_i, a_j) )

and the loss of the global batch is the sum over all captions divided by the number of all their tokens.  CoLLAT,
section 3.2, matches tokens one to one instead; here two words may be heard at the same moment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText


class TokenAlignment(nn.Module):
    """The distance of each token of a caption to the nearest token of its clip.

    Args:
        audio_dim, text_dim: widths of the encoders' token vectors.
    """

    def __init__(self, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(audio_dim, text_dim)

    def forward(self, audio: EncodedAudio, text: EncodedText) -> tuple[Tensor, Tensor]:
        """The sum over all tokens of the captions, and how many there are; clips need `EncodedAudio.tokens`."""
        assert audio.tokens is not None and audio.token_mask is not None
        wide = accumulation_dtype(audio.tokens.dtype)
        sounds = F.normalize(self.projection(audio.tokens).to(wide), dim=-1)
        words = F.normalize(text.tokens.to(wide), dim=-1)
        near = torch.einsum("bnd,bmd->bnm", words, sounds)
        near = near.masked_fill(~audio.token_mask[:, None], -1.0).amax(-1)
        mask = text.token_mask.to(near.dtype)
        return ((1 - near) * mask).sum(), mask.sum()
