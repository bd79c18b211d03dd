"""A locked text encoder that reads vectors in place of token embeddings (CoLLAT, section 3.1).

Sounds are written as a sequence of vectors where the text encoder expects the embeddings of its tokens, and the encoder
then reads them like a text.  Nothing of the encoder changes: its parameters get no gradient, and it has no dropout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.models.encoders import EncodedText, Place, TextEncoder

Ends = Literal["given", "predicted"]


@dataclass(frozen=True)
class ReadText:
    """The outputs of a text encoder for a sequence.

    Attributes:
        encoded: its vectors, ``[b, N, d]`` and pooled.
        layer: ``[b, N, d]``, the same sequence at the layer at which tokens are compared.
    """

    encoded: EncodedText
    layer: Tensor


class TokenSpace:
    """How sounds enter a text encoder, and where in it tokens are compared.

    Args:
        text: the encoder; it is frozen and stays in evaluation mode.
        ends: "given": the encoder's own embeddings of its begin and end tokens stand around what is written;
            "predicted": everything is written.
        place: whether vectors enter before the encoder adds its positions, or after that.
        layer: 0: tokens are compared where vectors enter; L: after block L.

    Raises:
        InputError: the encoder does not accept embeddings there, or has no such layer.
    """

    def __init__(self, text: TextEncoder, ends: Ends, place: Place, layer: int) -> None:
        blocks = len(text.blocks())
        if not 0 <= layer <= blocks:
            raise InputError(
                "no layer of the text encoder", value=layer, remedy=f"from 0 (the embeddings) to {blocks} (its blocks)"
            )
        text.requires_grad_(False)
        self.text, self.place, self.layer = text, place, layer
        text.embedding(place)  # refuses an encoder that has none
        self.first, self.last = frame(text.tokenizer)
        self.before, self.after = (len(self.first), len(self.last)) if ends == "given" else (0, 0)
        vocabulary = text.tokenizer.get_vocab().values()
        special = {*self.first, *self.last, text.tokenizer.pad_token_id}
        self._word = min(token for token in vocabulary if token not in special)  # stands where vectors are put

    @property
    def given(self) -> int:
        """The number of given tokens around the predicted ones."""
        return self.before + self.after

    def read(self, vectors: Tensor) -> ReadText:
        """Encode ``vectors [b, M, d]`` as if they were token embeddings; gradients flow through the encoder to them."""
        count, length = vectors.shape[:2]
        first, last = (self.first, self.last) if self.given else ([], [])
        ids = torch.tensor([*first, *[self._word] * length, *last], device=vectors.device).expand(count, -1)
        written = slice(self.before, self.before + length)

        def put(module: Any, inputs: Any, output: Tensor) -> Tensor:
            return torch.cat((output[:, : self.before], vectors.to(output.dtype), output[:, written.stop :]), 1)

        with hooked(self.text.embedding(self.place), put):
            found = self._encode(ids, torch.ones_like(ids, dtype=torch.bool))
        return ReadText(found.encoded, found.layer[:, written])

    @torch.no_grad()
    def encode(self, tokens: Tensor, token_mask: Tensor) -> ReadText:
        """Encode ``tokens [b, N]``, as the encoder does without any sound."""
        return self._encode(tokens, token_mask)

    def _encode(self, tokens: Tensor, token_mask: Tensor) -> ReadText:
        text, seen = self.text, []

        def see(module: Any, inputs: Any, output: Any) -> None:
            seen.append(output if isinstance(output, Tensor) else output[0])

        module = text.blocks()[self.layer - 1] if self.layer else text.embedding(self.place)
        with hooked(module, see):
            encoded = text.encode(tokens, token_mask)
        return ReadText(encoded, seen[0])

    def examples(self) -> Tensor:
        """Vectors ``[n, d]`` of tokens from all over the vocabulary, where what is written enters the encoder."""
        rows, length = 8, 32
        ids = torch.linspace(0, len(self.text.tokenizer) - 1, rows * length).long().view(rows, length)
        entrance = TokenSpace(self.text, "predicted", self.place, 0)
        return entrance.encode(ids, torch.ones_like(ids, dtype=torch.bool)).layer.flatten(0, 1)

    def compared(self, token_mask: Tensor, padding: bool) -> Tensor:
        """Which tokens of texts are compared with what is written, ``[b, N]`` bool.

        Begin and end tokens are left out where they are given.

        Args:
            token_mask: ``[b, N]`` bool, True at tokens.
            padding: whether padding takes part.
        """
        place, count = token_mask.cumsum(1), token_mask.sum(1, keepdim=True)
        words = token_mask & (place > self.before) & (place <= count - self.after)
        return words | ~token_mask if padding else words


@contextlib.contextmanager
def hooked(module: torch.nn.Module, hook: Any) -> Iterator[None]:
    """Let ``hook(module, inputs, output)`` see, or replace, what a module returns."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before and after every text."""
    whole, inside = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(k for k in range(len(whole)) if whole[k : k + len(inside)] == inside)
    return whole[:start], whole[start + len(inside) :]
