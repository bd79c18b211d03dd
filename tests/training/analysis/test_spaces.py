"""The vectors that `earshot analyse` draws."""

from __future__ import annotations

import torch

from training.analysis.spaces import spaces
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import build_head, token_attention


def test_the_mean_of_a_captions_queries_is_that_of_its_real_tokens() -> None:
    head = build_head(token_attention.Settings(dim=8, heads=2), 6, 8)  # with biases: queries of zeros are not zero
    tokens, segments = torch.randn(3, 5, 8), torch.randn(2, 4, 6)
    words, sounds = torch.arange(5) < 2, torch.arange(4) < 3
    with torch.no_grad():
        padded = spaces(
            head,
            head(EncodedText(tokens, words.expand(3, -1))),
            head(EncodedAudio(segments, sounds.expand(2, -1))),
        )
        alone = spaces(
            head,
            head(EncodedText(tokens[:, :2], words[:2].expand(3, -1))),
            head(EncodedAudio(segments[:, :3], sounds[:3].expand(2, -1))),
        )
    for one, other in zip(padded, alone, strict=True):
        torch.testing.assert_close(one.texts, other.texts)
        torch.testing.assert_close(one.sounds, other.sounds)
