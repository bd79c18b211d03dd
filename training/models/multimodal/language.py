"""The language model of a multimodal model, which is also its text encoder.

The language models inside Qwen2.5-Omni, Qwen2-Audio and Qwen3-Omni are read as plain language models.  Their positions
have three axes because of pictures and video; for text and sound all three are equal.  No vision tower is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.config.checks import check_multiple, check_positive
from training.engine.dropout import draws_by_sample
from training.models.encoders import TextEncoder
from training.models.encoders.published import load_tokenizer, random_model
from training.models.encoders.text.tokenizer import train_tokenizer
from training.models.encoders.text.transformer import check_vocabulary
from training.models.multimodal import packing, prompts
from training.models.multimodal.sources import LLAMA, load_language_model


@dataclass(frozen=True)
class Settings:
    """Settings of the language model.

    Attributes:
        encoder: the name of the encoder.
        source: a causal language model of transformers, or a multimodal model that holds one: a name on the Hugging
            Face hub, a local folder, or ``random`` for a Llama of the sizes given here.
        tokenizer: a name on the hub or a local folder; None: the source's own, or for ``random`` one that is trained
            on the training captions.
        system: what the system says at the start of a chat; None: nothing.
        width, depth, heads, vocabulary: sizes of ``random``.
    """

    encoder: str = "multimodal"
    source: str = "Qwen/Qwen2.5-Omni-3B"
    tokenizer: str | None = None
    system: str | None = None
    width: int = 576
    depth: int = 30
    heads: int = 9
    vocabulary: int = 30522

    def __post_init__(self) -> None:
        check_positive(self, "depth", "vocabulary")
        check_multiple(self, "width")


class LanguageModel(TextEncoder):
    """A causal language model; its last hidden state of a prompt is the embedding of a text."""

    pooling = "last"

    def __init__(self, net: Any, tokenizer: Any, system: str | None) -> None:
        super().__init__()
        packing.enable(net)
        self.net = net
        self.chat = prompts.chat(tokenizer, system)
        before, after = self.chat
        self.tokenizer = prompts.PromptedTokenizer(tokenizer, before, prompts.OF_TEXT + after)
        longest = getattr(net.config, "max_position_embeddings", None)
        prompt = len(self.numbers(before + prompts.OF_TEXT + after))
        self.max_tokens = None if longest is None else longest - prompt
        self.dim = net.config.hidden_size
        if net.get_output_embeddings().weight is not net.get_input_embeddings().weight:
            net.get_output_embeddings().requires_grad_(False)  # only a re-ranker reads it

    def blocks(self) -> list[nn.Module]:
        return list(self.net.model.layers)

    def top(self) -> list[nn.Module]:
        return [self.net.model.norm]

    def numbers(self, text: str) -> list[int]:
        """The token numbers of a piece of a prompt."""
        return list(self.tokenizer.plain(text, add_special_tokens=False)["input_ids"])

    def embed(self, tokens: Tensor) -> Tensor:
        """The input of the first block, ``[..., d]``, for tokens ``[...]``."""
        vectors: Tensor = self.net.get_input_embeddings()(tokens)
        return vectors

    def hidden(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states ``[b, L, d]`` of ``embedded [b, L, d]``, padded on the right as ``mask [b, L]``.

        Padding is not computed, unless dropout is drawn for each sample: that needs the samples as rows.
        """
        if not draws_by_sample():
            return packing.hidden(self.net.model, embedded, mask.bool())
        states: Tensor = self.net.model(
            inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False
        ).last_hidden_state
        return states

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        return self.hidden(self.embed(tokens), token_mask)


def build(settings: Settings, captions: Iterable[str]) -> LanguageModel:
    """The language model that ``settings`` describes, published or random."""
    if settings.source == "random":
        if settings.tokenizer is None:
            tokenizer = train_tokenizer(captions, settings.vocabulary)
        else:
            tokenizer = load_tokenizer(settings.tokenizer)
        net = random_model(LLAMA, _sizes(settings, len(tokenizer)))
    else:
        net = load_language_model(settings.source)
        tokenizer = load_tokenizer(settings.tokenizer or settings.source)
    check_vocabulary(net, tokenizer, settings.tokenizer or settings.source)
    return LanguageModel(net, tokenizer, settings.system)


def _sizes(settings: Settings, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": settings.width,
        "intermediate_size": 4 * settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.heads,
        "tie_word_embeddings": True,
    }


def last_of(states: Tensor, mask: Tensor) -> Tensor:
    """The states ``[b, d]`` at the last tokens that ``mask [b, L]`` marks, of ``[b, L, d]``."""
    return states[torch.arange(len(states), device=states.device), mask.long().sum(1) - 1]
