"""First stages, and training on the nearest negatives alone."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.engine.test_equivalence import Case, prove, splits
from tests.training.models.heads.test_heads import ALL, AUDIO, TEXT, encoded, randomised
from tests.training.objectives.pairs.dense import relations
from training.engine.distributed import LocalGroup
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import build_head, coattention, dual
from training.models.heads.base import rough_scores
from training.objectives.pairs import build_loss, ntxent, siglip
from training.objectives.pairs.tiled import Items, global_loss


def sides(head: Any, texts: int = 5, audios: int = 4) -> tuple[Any, Any]:
    text, audio = encoded(torch.float64, texts, audios)
    return head(text), head(audio)


@pytest.mark.parametrize("settings", [s for s in ALL if s.name != "co-attention"], ids=str)
def test_the_first_stage_is_exact_for_clips_of_one_vector(settings: Any) -> None:
    head = randomised(build_head(settings, AUDIO, TEXT)).eval()
    text, audio = encoded(torch.float64)
    assert audio.tokens is not None and audio.token_mask is not None
    one = EncodedAudio(
        audio.segments,
        audio.segment_mask & (torch.arange(3) == 0),
        audio.tokens,
        audio.token_mask & (torch.arange(12) == 0),
    )
    text_side, audio_side = head(text), head(one)
    rough = rough_scores(head, text_side, audio_side, head.shared())
    torch.testing.assert_close(rough, head.score(text_side, audio_side), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_padding_changes_nothing_in_the_first_stage(settings: Any) -> None:
    head = build_head(settings, AUDIO, TEXT).eval()
    text, audio = encoded(torch.float32)
    longer = EncodedText(
        torch.nn.functional.pad(text.tokens, (0, 0, 0, 3), value=9.0),
        torch.nn.functional.pad(text.token_mask, (0, 3)),
        text.pooled,
    )
    rough = [rough_scores(head, head(t), head(audio), head.shared()) for t in (text, longer)]
    torch.testing.assert_close(rough[0], rough[1], rtol=0, atol=1e-5)


def batch(size: int) -> tuple[EncodedText, EncodedAudio, Tensor]:
    """Captions, clips and ids; two samples share a clip, two a caption, two are kin."""
    generator = torch.Generator().manual_seed(3)
    text = EncodedText(
        torch.randn(size, 4, TEXT, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.arange(4) < torch.randint(1, 5, (size, 1), generator=generator),
    )
    audio = EncodedAudio(
        torch.randn(size, 3, AUDIO, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.arange(3) < torch.randint(1, 4, (size, 1), generator=generator),
    )
    ids = torch.arange(size)[:, None].repeat(1, 4)
    ids[1, 0] = ids[0, 0]
    ids[3, 1] = ids[2, 1]
    ids[5, 3] = ids[4, 3]
    return text, audio, ids


@pytest.mark.parametrize("loss_settings", [ntxent.Settings(trainable_tau=True), siglip.Settings()], ids=str)
@pytest.mark.parametrize("candidates", [1, 2, 8, 50])
def test_training_on_candidates_leaves_the_others_out(loss_settings: Any, candidates: int) -> None:
    torch.manual_seed(0)
    settings = coattention.Settings(dim=8, heads=2)
    head = randomised(build_head(settings, AUDIO, TEXT))
    near = build_head(dataclasses.replace(settings, candidates=candidates), AUDIO, TEXT).double()
    near.load_state_dict(head.state_dict())
    loss = build_loss(loss_settings).double()
    text, audio, ids = batch(8)
    rough = rough_scores(head, head(text), head(audio), head.shared())
    assert rough is not None
    relation = relations(ids, ids, loss.positives)
    rough[relation != 0] = -torch.inf
    chosen = torch.zeros(8, 8, dtype=torch.bool)
    for i, j in itertools.product(range(8), range(8)):
        nearer = (rough[i] > rough[i, j]).sum() < candidates or (rough[:, j] > rough[i, j]).sum() < candidates
        chosen[i, j] = relation[i, j] == 1 or (relation[i, j] == 0 and bool(nearer))

    def reference() -> Tensor:
        """The whole matrix, where pairs that were not chosen are left out."""
        logits = loss.logits(head.score(head(text), head(audio)), *(n.double() for n in loss()))
        seen = relation.masked_fill(~chosen, -1)
        if loss_settings.name == "siglip":
            terms = torch.nn.functional.softplus(logits.where(seen == 0, -logits)).masked_fill(seen == -1, 0)
            return terms.sum() / 8
        total = torch.zeros((), dtype=torch.float64)
        for matrix, marks in ((logits, seen), (logits.t(), seen.t())):
            lse = matrix.masked_fill(marks == -1, -torch.inf).logsumexp(1)
            pull = (matrix * (marks == 1)).sum(1) / (marks == 1).sum(1)
            total = total + (lse - pull).mean() / 2
        return total

    expected = reference()
    got = global_loss(near, loss, Items(near(text), ids), Items(near(audio), ids), LocalGroup())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    inputs = [text.tokens, audio.segments, *loss.parameters()]
    wanted = torch.autograd.grad(expected, [*inputs, *head.parameters()])
    found = torch.autograd.grad(got, [*inputs, *near.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


CASES = [
    Case(coattention.Settings(dim=8, heads=2, candidates=candidates), loss, rows, cached=cached)
    for candidates, loss, rows, cached in itertools.product(
        (1, 3), (ntxent.Settings(), siglip.Settings()), splits(3), (False, True)
    )
]


@pytest.mark.slow
def test_candidates_of_three_ranks_are_those_of_one(tmp_path: Path) -> None:
    prove(3, CASES, tmp_path)


def test_the_dual_encoder_needs_no_second_stage() -> None:
    head = build_head(dual.Settings(dim=16), AUDIO, TEXT).double()
    text, audio = sides(head)
    torch.testing.assert_close(rough_scores(head, text, audio, ()), head.score(text, audio))
