from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharding.common.errors import InputError
from tests.training.small_runs import small_recipe
from training.models.encoders import TEXT_ENCODERS, EncodedText, encoder_module
from training.models.encoders.text.families import BERT, Bert


@pytest.fixture(scope="module")
def minilm(shared_models: Path) -> Path:
    return shared_models / "all-MiniLM-L6-v2"


def encoded(source: Path, captions: list[str], **settings: str) -> EncodedText:
    encoder = BERT.build(Bert(source=str(source), dropout=0.0, **settings), []).eval()  # type: ignore[arg-type]
    words = encoder.tokenizer(captions, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return encoder.encode(words["input_ids"], words["attention_mask"].bool())


def test_settings_name_their_family() -> None:
    for name in TEXT_ENCODERS:
        assert encoder_module(TEXT_ENCODERS, name).Settings().encoder == name


def test_a_published_bert_gives_paraphrases_similar_vectors(minilm: Path) -> None:
    captions = ["a dog barks", "a puppy is barking loudly", "rain falls on a tin roof", "heavy rain hits metal"]
    pooled = encoded(minilm, captions).pooled
    assert pooled is not None
    similar = torch.nn.functional.cosine_similarity(pooled[:, None], pooled[None], dim=-1)
    assert similar[0, 1] > 0.6 > 0.4 > similar[0, 2]
    assert similar[2, 3] > 0.5


def test_a_bert_pools_the_mean_of_its_tokens_or_the_first_one(minilm: Path) -> None:
    captions = ["a dog barks", "rain falls on a tin roof at night"]
    mean, first = (encoded(minilm, captions, pooling=pooling) for pooling in ("mean", "first"))
    for row, mask in enumerate(mean.token_mask):
        assert mean.pooled is not None and first.pooled is not None
        torch.testing.assert_close(mean.pooled[row], mean.tokens[row][mask].mean(0))
        torch.testing.assert_close(first.pooled[row], first.tokens[row, 0])


def test_a_bert_has_no_other_pooling() -> None:
    with pytest.raises(InputError, match="valid: mean, first"):
        small_recipe(["text={encoder: bert, source: random, pooling: last}"])


def test_a_recipe_of_another_family_has_no_pooling() -> None:
    with pytest.raises(InputError, match="pooling"):
        small_recipe(["text={encoder: roberta, source: random, pooling: mean}"])
