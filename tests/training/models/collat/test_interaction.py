"""Random vectors become predictions of token embeddings, guided by sound alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.models.collat.interaction import InteractionSettings, TokenInteraction


def module(**settings: object) -> TokenInteraction:
    torch.manual_seed(0)
    examples = torch.randn(50, 6) * 0.03 + torch.arange(6.0)
    return TokenInteraction(InteractionSettings(width=16, heads=2, **{"blocks": 2, **settings}), 5, 4, examples)  # type: ignore[arg-type]


def sounds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(7) < torch.tensor([7, 3, 1])[:, None]
    return torch.randn(3, 7, 4, generator=generator), mask, torch.tensor([5, 6, 7])


def test_predictions_start_like_token_embeddings() -> None:
    found = module()(*sounds())
    assert found.shape == (3, 5, 6)
    torch.testing.assert_close(found.mean((0, 1)), torch.arange(6.0), rtol=0, atol=0.06)
    assert 0.01 < float((found - torch.arange(6.0)).std().detach()) < 0.1


def test_predictions_depend_on_sound_and_never_on_padding() -> None:
    interaction = module(self_attention=True)
    tokens, mask, seeds = sounds()
    found = interaction(tokens, mask, seeds)
    louder = tokens.masked_fill(~mask[..., None], 9.0)
    torch.testing.assert_close(interaction(louder, mask, seeds), found)
    longer = interaction(F.pad(tokens, (0, 0, 0, 4), value=3.0), F.pad(mask, (0, 4)), seeds)
    torch.testing.assert_close(longer, found)
    assert float((found[0] - found[1]).abs().max().detach()) > 1e-3
    assert float((found[0, 0] - found[0, 1]).abs().max().detach()) > 1e-3


def test_random_vectors_are_fixed_redrawn_for_each_sample_or_learned() -> None:
    tokens, mask, seeds = sounds()
    fixed, redrawn, learned = (module(start=start) for start in ("fixed", "redrawn", "learned"))
    assert fixed(tokens, mask, seeds).equal(fixed(tokens, mask, seeds + 1))
    once = redrawn(tokens, mask, seeds)
    assert redrawn(tokens, mask, seeds).equal(once) and not redrawn(tokens, mask, seeds + 1).equal(once)
    torch.testing.assert_close(redrawn(tokens[1:], mask[1:], seeds[1:]), once[1:])  # by sample, not by batch
    redrawn.eval()
    assert redrawn(tokens, mask, seeds).equal(redrawn(tokens, mask, seeds + 1))
    assert "start" in dict(learned.named_parameters()) and "start" in dict(fixed.named_buffers())


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="blocks"):
        InteractionSettings(blocks=0)
    with pytest.raises(InputError, match="width"):
        InteractionSettings(width=10, heads=4)
