"""Sequences of different lengths through a language model without their padding: all tokens one after the other.

Every layer but attention works on single tokens, so it computes what it would compute beside padding.  Attention puts
each sequence into a row of its own, where padding stands behind its tokens: a causal model does not see what follows,
so no mask is needed, and the fastest kernels of torch take it.  (transformers' own way for packed sequences needs
FlashAttention, or a mask over all pairs of tokens of the batch.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "earshot_packed"  # of the attention, among those of transformers


def enable(net: Any) -> None:
    """Let a causal language model of transformers read packed sequences too; all else it reads as with ``sdpa``."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    net.set_attn_implementation(NAME)


def hidden(net: Any, embedded: Tensor, mask: Tensor) -> Tensor:
    """The last hidden states ``[b, L, d]`` of sequences that are padded on the right; zeros where there is padding.

    Args:
        net: the decoder of a model that `enable` was called on.
        embedded: ``[b, L, d]``.
        mask: ``[b, L]`` bool, True at tokens.
    """
    places = mask.flatten().nonzero()[:, 0]
    positions = places % mask.shape[1]
    states = net(
        inputs_embeds=embedded.flatten(0, 1)[places][None],
        position_ids=positions[None],
        use_cache=False,
        packed_places=places,
        packed_shape=tuple(mask.shape),
    ).last_hidden_state
    return _spread(states[0], places, mask.shape)


def _spread(tokens: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``tokens [T, ...]`` at their places in ``[b, L, ...]``, zeros elsewhere."""
    rows = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:])
    return rows.index_copy(0, places, tokens).unflatten(0, shape)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_places: Tensor | None = None,
    packed_shape: tuple[int, int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: ``query [b, h, L, d]`` to ``[b, L, h, d]``."""
    if packed_places is None or packed_shape is None:
        found: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return found, None
    rows = (
        _spread(each[0].transpose(0, 1), packed_places, packed_shape).transpose(1, 2) for each in (query, key, value)
    )
    found = sdpa_attention_forward(module, *rows, None, **options)[0]
    return found.flatten(0, 1)[packed_places][None], None


def _mask(**known: Any) -> Tensor | None:
    """No mask for packed sequences, which transformers recognises by their positions; else that of ``sdpa``."""
    if known["attention_mask"] is None and not known["allow_is_causal_skip"]:
        return None
    found: Tensor | None = sdpa_mask(**known)
    return found
