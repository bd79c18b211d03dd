from __future__ import annotations

from typing import Any

import pytest
import torch

from sharding.common.errors import InputError
from tests.training.models.heads.test_candidates import sides
from tests.training.models.heads.test_heads import ALL, AUDIO, TEXT, randomised
from training.evaluation.two_stage import two_stage_scores
from training.models.heads import build_head, dual
from training.models.heads.base import rough_scores
from training.objectives.pairs.tiled import score_all


@pytest.mark.parametrize("by_text", [True, False])
@pytest.mark.parametrize("settings", ALL, ids=str)
def test_the_nearest_candidates_have_exact_scores_and_the_others_rank_below_them(settings: Any, by_text: bool) -> None:
    head = randomised(build_head(settings, AUDIO, TEXT)).eval()
    text, audio = sides(head)
    exact = score_all(head, text, audio)
    for everything in (0, 5, 100):
        torch.testing.assert_close(two_stage_scores(head, text, audio, everything, by_text), exact)
    some = two_stage_scores(head, text, audio, 2, by_text)
    rough = rough_scores(head, text, audio, head.shared())
    assert rough is not None
    if not by_text:
        exact, some, rough = exact.t(), some.t(), rough.t()
    if head.embedding(text) is not None:  # the vectors are exact
        torch.testing.assert_close(some, exact)
        return
    for row, scores, guess in zip(exact, some, rough, strict=True):
        nearest = guess.topk(2).indices
        torch.testing.assert_close(scores[nearest], row[nearest])
        rest = torch.tensor([i for i in range(len(row)) if i not in nearest])
        assert scores[rest].max() < -1.5
        assert scores[rest].argsort().tolist() == guess[rest].argsort().tolist()


def test_a_negative_number_of_candidates_is_refused() -> None:
    head = build_head(dual.Settings(dim=16), AUDIO, TEXT).double()
    with pytest.raises(InputError, match="candidates"):
        two_stage_scores(head, *sides(head), -1)
