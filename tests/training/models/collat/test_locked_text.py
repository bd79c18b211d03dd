"""A model whose sounds a locked text encoder reads: segments, sides, and what stays as it is."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.training.models.encoders.test_encoders import CAPTIONS, audio_encoder, text_encoder, tokens_of
from training.models.collat.interaction import InteractionSettings, TokenInteraction
from training.models.collat.locked_text import LockedTextModel
from training.models.collat.token_space import TokenSpace


def model_of(text: str = "clip", dropout: float = 0.0) -> LockedTextModel:
    torch.manual_seed(0)
    audio, space = audio_encoder("passt"), TokenSpace(text_encoder(text, dropout=dropout), "given", "before", 0)
    interaction = TokenInteraction(InteractionSettings(blocks=2, width=16, heads=2), 6, audio.dim, space.examples())
    return LockedTextModel(audio, interaction, space)


def clips() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, 2, 128, 200, generator=generator)
    return features, torch.tensor([[200, 200], [200, 120], [60, 0]]), torch.tensor([1, 2, 3])


def test_whole_segments_of_padding_change_nothing_and_all_segments_are_heard() -> None:
    model = model_of().eval()
    features, frames, seeds = clips()
    with torch.no_grad():
        before = model.audio_side(features, frames, seeds)[0]
        longer = model.audio_side(F.pad(features, (0, 0, 0, 0, 0, 3), value=7.0), F.pad(frames, (0, 3)), seeds)[0]
        other = features.clone()
        other[0, 1] += 1
        changed = model.audio_side(other, frames, seeds)[0]
    torch.testing.assert_close(longer, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(3))
    assert not torch.allclose(changed[0], before[0], atol=1e-4) and torch.allclose(changed[1], before[1], atol=1e-5)


def test_texts_have_the_vectors_of_the_text_encoder_itself_also_in_training() -> None:
    model = model_of("bert", dropout=0.5)
    tokens, mask = tokens_of(model.text, CAPTIONS)
    with torch.no_grad():
        expected = F.normalize(model.text.eval().encode(tokens, mask).pooled, dim=-1)
    model.train()
    assert not model.text.training and model.interaction.training and model.audio.training
    assert model.text_side(tokens, mask)[0].equal(expected)


def test_steps_move_the_audio_side_and_nothing_of_the_text_encoder() -> None:
    model = model_of().train()
    before = {name: value.clone() for name, value in model.text.state_dict(keep_vars=False).items()}
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=0.1, weight_decay=0.5)
    tokens, mask = tokens_of(model.text, CAPTIONS)
    features, frames, seeds = clips()
    text = model.text_side(tokens, mask)[0]
    for _ in range(2):
        optimizer.zero_grad()
        (1 - (model.audio_side(features, frames, seeds)[0] * text[:3]).sum(-1)).mean().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.interaction.parameters())
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.audio.parameters())
        optimizer.step()
    after = model.text.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert model.text_side(tokens, mask)[0].equal(text)
