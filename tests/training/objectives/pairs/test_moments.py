"""The loss between captions with times and windows, in tiles, against its rules on the whole matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from tests.training.objectives.pairs.dense import relations
from tests.training.objectives.pairs.test_hybrid_nce import tiles
from training.objectives.pairs.moments import MomentNCE, Settings, caption_words, window_words
from training.objectives.pairs.relations import stack_ids
from training.objectives.pairs.tiled import Items


def problem(seed: int, captions: int, windows: int, clips: int) -> tuple[Items, Items]:
    """Captions with none to two intervals, and windows of 0 to 20 ticks; clips, captions and kin recur."""
    draw = torch.Generator().manual_seed(seed)
    count = captions + windows
    sides = F.normalize(torch.randn(count, 4, generator=draw, dtype=torch.float64), dim=-1)
    ids = torch.randint(0, clips, (count, 4), generator=draw)
    times = torch.randint(0, 20, (count, 2, 2), generator=draw).sort(dim=2).values
    times[:, 1] += 20  # after the first interval
    times[torch.rand(count, 2, generator=draw) < 0.3] = 0
    words = caption_words(ids[:captions, 0], times[:captions].flatten(1))
    start = times[captions:, 0, 0]
    places = window_words(ids[captions:, 0], start, start + 1 + times[captions:, 0, 1] % 7)
    left, right = sides.split((captions, windows))
    rows, columns = ids.split((captions, windows))
    return (
        Items((left.clone().requires_grad_(),), stack_ids(*rows.unbind(1), words)),
        Items((right.clone().requires_grad_(),), stack_ids(*columns.unbind(1), places)),
    )


def kind(caption: list[int], window: list[int], known: int, least: float) -> int:
    """1 positive, 0 negative, -1 left out, by the module's rules; ``known`` is what the ids alone say."""
    if caption[0] != window[0]:
        return -1 if known else 0
    start, end = window[5:7]
    intervals = [pair for pair in zip(caption[5::2], caption[6::2], strict=True) if pair[1] > pair[0]]
    shared = [(max(0, min(end, b) - max(start, a)), min(b - a, end - start)) for a, b in intervals]
    if any(both >= least * shorter and both for both, shorter in shared):
        return 1
    return 0 if intervals and not any(both for both, _ in shared) else -1


def by_rules(options: Settings, rows: Items, columns: Items) -> Tensor:
    known = relations(rows.ids, columns.ids).tolist()
    kinds = torch.tensor(
        [
            [kind(one, other, known[i][j], options.least) for j, other in enumerate(columns.ids.tolist())]
            for i, one in enumerate(rows.ids.tolist())
        ]
    )
    logits = rows.side[0] @ columns.side[0].t() / options.tau
    total = logits.new_zeros(())
    for numbers, found in ((logits, kinds), (logits.t(), kinds.t())):
        terms = [
            kept[which >= 0].logsumexp(0) - kept[which == 1].mean()
            for kept, which in zip(numbers, found, strict=True)
            if (which == 1).any()
        ]
        if terms:
            total = total + torch.stack(terms).mean() / 2
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    captions=st.integers(1, 8),
    windows=st.integers(1, 12),
    clips=st.integers(1, 12),
    tile=st.integers(1, 80),
    options=st.builds(Settings, tau=st.sampled_from([0.05, 0.5]), least=st.sampled_from([0.3, 0.5, 1.0])),
)
def test_tiles_of_any_size_give_the_rules_in_both_directions(
    seed: int, captions: int, windows: int, clips: int, tile: int, options: Settings
) -> None:
    rows, columns = problem(seed, captions, windows, clips)
    got, wanted = tiles(MomentNCE(options), rows, columns, tile), by_rules(options, rows, columns)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    if wanted.requires_grad:
        asked = [rows.side[0], columns.side[0]]
        for one, other in zip(torch.autograd.grad(got, asked), torch.autograd.grad(wanted, asked), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_window_inside_the_interval_is_positive_one_elsewhere_negative_and_one_across_its_end_left_out() -> None:
    caption = [7, 1, 7, 7, 7, 100, 200]
    windows = {(120, 160): 1, (90, 210): 1, (160, 240): 1, (190, 260): -1, (200, 300): 0, (0, 60): 0}
    assert {place: kind(caption, [7, 1, 7, 7, 7, *place], 1, 0.5) for place in windows} == windows


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="least must be above 0"):
        Settings(least=0.0)
