from __future__ import annotations

import torch

from training.models.encoders.pooling import masked_mean, pool


def test_padding_on_either_side_has_no_influence() -> None:
    vectors = torch.arange(8.0).view(2, 4, 1)
    mask = torch.tensor([[False, True, True, False], [True, True, True, True]])
    for way, expected in (("first", [1.0, 4.0]), ("last", [2.0, 7.0]), ("mean", [1.5, 5.5])):
        assert pool(way, vectors, mask)[:, 0].tolist() == expected  # type: ignore[arg-type]


def test_the_mean_of_no_token_is_zero_with_a_finite_gradient() -> None:
    vectors = torch.full((1, 3, 2), float("nan"), requires_grad=True)
    mean = masked_mean(vectors, torch.zeros(1, 3, dtype=torch.bool))
    assert mean.tolist() == [[0.0, 0.0]]
    mean.sum().backward()
    assert vectors.grad is not None and vectors.grad.eq(0).all()
