"""Encoders and head together: padding of whole segments and of captions changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sharding.common.errors import InputError
from tests.training.models.encoders.test_encoders import (
    AUDIO,
    AUDIO_NAMES,
    CAPTIONS,
    audio_encoder,
    text_encoder,
    tokens_of,
)
from tests.training.small_runs import TREE, small_recipe
from training.models.heads import build_head
from training.models.heads.base import Side
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.tiled import score_all
from training.tasks.retrieval import assemble

HEADS: list[dict[str, Any]] = [
    {"name": "dual", "dim": 16, "audio_pooling": "attention", "text_pooling": "mean"},
    {"name": "token-attention", "dim": 16, "heads": 2},
    {"name": "token-attention", "dim": 16, "heads": 2, "audio": "patches"},
    {"name": "sentence-attention", "dim": 16, "heads": 2, "audio": "patches"},
    {"name": "text-aware-pooling", "dim": 16, "audio": "patches"},
    {"name": "co-attention", "dim": 16, "heads": 2, "audio": "patches"},
]


def model_of(encoder: Any, head: dict[str, Any]) -> RetrievalModel:
    from training.models import heads

    module = heads.importlib.import_module(heads.HEADS[head["name"]])
    text = text_encoder("roberta", dropout=0.0)
    return RetrievalModel(encoder, text, build_head(module.Settings(**head), encoder.dim, text.dim)).eval()


def scores(model: RetrievalModel, texts: Side, audios: Side) -> torch.Tensor:
    return score_all(model.head, texts, audios)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head['name']} {head.get('audio', '')}".strip())
def test_whole_segments_of_padding_change_nothing(head: dict[str, Any]) -> None:
    model = model_of(audio_encoder("passt"), head)
    features, frames = torch.randn(3, 2, 128, 200), torch.tensor([[200, 200], [200, 120], [60, 0]])
    tokens, mask = tokens_of(model.text, CAPTIONS)
    seeds = torch.tensor([1, 2, 3])
    with torch.no_grad():
        before = scores(model, model.text_side(tokens, mask), model.audio_side(features, frames, seeds))
        longer = F.pad(features, (0, 0, 0, 0, 0, 3), value=7.0)
        words = F.pad(tokens, (0, 5), value=model.text.tokenizer.pad_token_id)
        after = scores(
            model,
            model.text_side(words, F.pad(mask, (0, 5))),
            model.audio_side(longer, F.pad(frames, (0, 3)), seeds),
        )
        alone = scores(
            model, model.text_side(tokens[:1], mask[:1]), model.audio_side(features[2:, :1], frames[2:, :1], seeds[2:])
        )
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone[0, 0], before[0, 2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", AUDIO_NAMES)
def test_a_batch_without_sound_has_empty_sides(name: str) -> None:
    """As a rank has it that gets none of an evaluation's last batches."""
    _, bins, frames = AUDIO[name]
    model = model_of(audio_encoder(name), HEADS[2])
    with torch.no_grad():
        side = model.audio_side(torch.zeros(0, 1, bins, frames), torch.zeros(0, 1).long(), torch.zeros(0).long())
    assert all(len(tensor) == 0 for tensor in side)


def test_a_head_that_reads_patches_is_refused_where_patches_have_another_width_than_segments() -> None:
    tree = TREE | {
        "audio": {"encoder": "whisper", "source": "random", "segment_s": 1.0, "max_s": 2.0, "width": 16, "depth": 1}
        | {"heads": 2, "pooled": "layers"},
        "head": {"name": "token-attention", "dim": 16, "heads": 2, "audio": "patches"},
        "data": TREE["data"] | {"masking": {}},
    }
    with pytest.raises(InputError, match="reads patches of 16 numbers, and expects as many as a segment has, 96"):
        assemble(small_recipe(tree=tree), ["a low hum"])
