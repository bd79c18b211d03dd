"""A loss between predicted and true token embeddings whose order does not count (CoLLAT, sections 3.2 and 3.4).

A clip has M predicted vectors ``p_j`` and its text has N token vectors ``t_i``, of which some take part.  Each of these
is matched with a prediction of its own; with the match ``g``,

    L = sum over the text's tokens i of  | p_g(i) - t_i |_1                                                (eq. 1)

The paper matches greedily: from the right-most token to the left-most, each takes the nearest prediction that is still
free.  `optimal_match` finds the match with the smallest sum instead, which the paper leaves as future work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.engine.distributed import accumulation_dtype

Matching = Literal["greedy", "optimal"]
Unit = Literal["sum", "token", "mean"]


def distances(text: Tensor, predicted: Tensor) -> Tensor:
    """The L1 distance of every token to every prediction: ``[b, N, d]`` and ``[b, M, d]`` to ``[b, N, M]``."""
    wide = accumulation_dtype(predicted.dtype)
    return torch.cdist(text.detach().to(wide), predicted.detach().to(wide), p=1.0)


def greedy_match(cost: Tensor, mask: Tensor) -> Tensor:
    """The match of CoLLAT, section 3.2: the right-most token first, and each takes the nearest free prediction.

    Args:
        cost: ``[b, N, M]``, the distance of each token to each prediction; M must not be below the number of tokens
            that take part.
        mask: ``[b, N]`` bool, which tokens take part.

    Returns:
        ``[b, N]`` int64, the prediction of each token, the first of equally near ones; 0 if none takes part.
    """
    match = torch.zeros_like(mask, dtype=torch.int64)
    taken = torch.zeros(cost.shape[0], cost.shape[2], dtype=torch.bool, device=cost.device)
    for token in reversed(range(cost.shape[1])):
        choice = cost[:, token].masked_fill(taken, torch.inf).argmin(1, keepdim=True)
        here = mask[:, token, None]
        match[:, token, None] = torch.where(here, choice, 0)
        taken = taken.scatter(1, choice, taken.gather(1, choice) | here)
    return match


def optimal_match(cost: Tensor, mask: Tensor) -> Tensor:
    """The match with the smallest sum of distances; arguments and result as of `greedy_match`."""
    from scipy.optimize import linear_sum_assignment

    match = np.zeros(mask.shape, np.int64)
    for row, (costs, used) in enumerate(zip(cost.double().cpu().numpy(), mask.cpu().numpy(), strict=True)):
        match[row, used] = linear_sum_assignment(costs[used])[1]
    return torch.from_numpy(match).to(cost.device)


MATCHINGS: dict[Matching, Callable[[Tensor, Tensor], Tensor]] = {"greedy": greedy_match, "optimal": optimal_match}


def matched_difference(
    text: Tensor, mask: Tensor, predicted: Tensor, matching: Matching, unit: Unit
) -> tuple[Tensor, Tensor]:
    """The cross-modal token loss of some clips, eq. 1, as a sum and what it is divided by.

    The match itself has no gradient: it is found before each update, as in the paper.

    Args:
        text: ``[b, N, d]``, the vectors of the texts' tokens.
        mask: ``[b, N]`` bool, which of them take part.
        predicted: ``[b, M, d]``, the vectors that were predicted from sound.
        matching: how tokens and predictions are matched.
        unit: what the sum is divided by; see `counted`.

    Returns:
        the sum ``[]`` with gradient, and the count ``[]`` of the units that it has.
    """
    match = MATCHINGS[matching](distances(text, predicted), mask)
    chosen = predicted.gather(1, match[..., None].expand(-1, -1, predicted.shape[-1]))
    return difference(text, chosen, mask), counted(mask, predicted.shape[-1], unit)


def difference(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """The sum of the absolute differences of ``[b, N, d]`` and ``[b, N, d]`` where the mask ``[b, N]`` says so."""
    wide = accumulation_dtype(first.dtype)
    return (first.to(wide) - second.to(wide)).abs().sum(-1).masked_fill(~mask, 0).sum()


def counted(mask: Tensor, width: int, unit: Unit) -> Tensor:
    """The count by which the loss is divided: clips ("sum"), tokens, or numbers ("mean") of ``mask [b, N]``."""
    if unit == "sum":
        return torch.tensor(len(mask), device=mask.device)
    tokens = mask.sum()
    return tokens if unit == "token" else tokens * width
