"""A text encoder reads vectors in place of tokens, for every family, and nothing of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from tests.training.models.encoders.test_encoders import TEXT_NAMES
from training.models.collat.token_space import TokenSpace, frame
from training.models.encoders import TEXT_ENCODERS, TextEncoder, encoder_module
from training.models.encoders.text.families import BERT, Bert

TEXTS = ["a dog barks while rain falls", "rain"]


def small(name: str) -> TextEncoder:
    family = encoder_module(TEXT_ENCODERS, name)
    settings = family.Settings(source="random", width=16, depth=2, heads=2, vocabulary=300)
    encoder: TextEncoder = family.build(settings, TEXTS).eval()
    return encoder


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_embeddings_of_a_text_are_read_like_the_text(name: str) -> None:
    encoder = small(name)
    tokens = torch.tensor([encoder.tokenizer(TEXTS[0])["input_ids"]])
    everything = torch.ones_like(tokens, dtype=torch.bool)
    expected = encoder.encode(tokens, everything)
    places = ("before",) if name == "gtr-t5" else ("before", "after")  # T5 adds no positions
    for place in places:
        for layer in (0, 1, 2):
            for ends in ("given", "predicted"):
                space, start = (TokenSpace(encoder, ends, place, each) for each in (layer, 0))  # type: ignore[arg-type]
                inside = slice(space.before, tokens.shape[1] - space.after)
                found = space.read(start.encode(tokens, everything).layer[:, inside])
                torch.testing.assert_close(found.encoded.pooled, expected.pooled)
                torch.testing.assert_close(found.encoded.tokens, expected.tokens)
                torch.testing.assert_close(found.layer, space.encode(tokens, everything).layer[:, inside])


def test_the_last_layer_is_what_the_encoder_returns_before_its_norm() -> None:
    encoder = small("bert")
    tokens = torch.tensor([encoder.tokenizer(TEXTS[0])["input_ids"]])
    everything = torch.ones_like(tokens, dtype=torch.bool)
    torch.testing.assert_close(
        TokenSpace(encoder, "given", "before", 2).encode(tokens, everything).layer, encoder(tokens, everything)
    )


def test_gradients_flow_through_the_encoder_and_stop_at_its_weights() -> None:
    encoder = small("clip")
    space = TokenSpace(encoder, "given", "before", 1)
    vectors = torch.randn(2, 3, 16, requires_grad=True)
    found = space.read(vectors)
    assert found.encoded.pooled is not None
    (found.encoded.pooled.square().sum() + found.layer.sum()).backward()
    assert vectors.grad is not None and bool((vectors.grad != 0).all())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
    tokens = torch.tensor([encoder.tokenizer(TEXTS[0])["input_ids"]])
    assert not space.encode(tokens, torch.ones_like(tokens, dtype=torch.bool)).layer.requires_grad


def test_words_are_compared_and_begin_end_and_padding_only_where_asked() -> None:
    encoder = small("bert")
    words = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")["attention_mask"].bool()
    counts = words.sum(1)
    given, predicted = (TokenSpace(encoder, ends, "before", 0) for ends in ("given", "predicted"))  # type: ignore[arg-type]
    assert given.given == 2 and predicted.given == 0
    assert given.compared(words, padding=False).sum(1).tolist() == (counts - 2).tolist()
    assert not given.compared(words, padding=False)[:, 0].any()
    assert predicted.compared(words, padding=False).equal(words)
    assert predicted.compared(words, padding=True).all()


class Bag(TextEncoder):
    """A user's own encoder, which takes tokens alone."""

    def blocks(self) -> list[nn.Module]:
        return []

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, 4)


def test_a_layer_or_an_encoder_that_cannot_do_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"from 0 \(the embeddings\) to 2"):
        TokenSpace(small("bert"), "given", "before", 3)
    with pytest.raises(InputError, match="adds no positions"):
        TokenSpace(small("gtr-t5"), "given", "after", 0)
    with pytest.raises(InputError, match="takes tokens alone"):
        TokenSpace(Bag(), "given", "before", 0)


def test_published_minilm_reads_its_own_embeddings(shared_models: Path) -> None:
    encoder = BERT.build(Bert(source=str(shared_models / "all-MiniLM-L6-v2")), []).eval()
    assert frame(encoder.tokenizer) == ([101], [102])
    space = TokenSpace(encoder, "given", "before", 0)
    tokens = torch.tensor([encoder.tokenizer("a dog barks while rain falls")["input_ids"]])
    text = space.encode(tokens, torch.ones_like(tokens, dtype=torch.bool))
    found = space.read(text.layer[:, 1:-1])
    torch.testing.assert_close(found.encoded.pooled, text.encoded.pooled)
    turned = space.read(text.layer[:, [1, 3, 2, 5, 4, 6]])
    assert found.encoded.pooled is not None and turned.encoded.pooled is not None
    similarity = float(torch.cosine_similarity(found.encoded.pooled, turned.encoded.pooled))
    assert 0.6 < similarity < 0.999  # positions count, and the words are still the same
