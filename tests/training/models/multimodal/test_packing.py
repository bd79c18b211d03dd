"""Sequences without their padding give the states and the gradient that they give beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.training.models.multimodal.families import CAPTIONS, TEXT
from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.small_runs import small_recipe
from training.engine.dropout import SampleDropout
from training.models.multimodal import packing
from training.tasks.retrieval import assemble

torch.manual_seed(0)
PLAIN: dict[str, Any] = {
    "llama": LlamaForCausalLM(LlamaConfig(**TEXT)).eval(),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**TEXT)).eval(),
}
PACKED: dict[str, Any] = {}
for name, each in PLAIN.items():
    PACKED[name] = type(each)(type(each.config)(**TEXT)).eval()
    PACKED[name].load_state_dict(each.state_dict())
    packing.enable(PACKED[name])


def padded(net: Any, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = net.model(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state
    return states * mask[..., None]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 3), st.sampled_from(sorted(PLAIN)))
def test_states_and_gradients_are_those_beside_padding(lengths: list[int], more: int, family: str) -> None:
    mask = torch.arange(max(lengths) + more) < torch.tensor(lengths)[:, None]
    embedded = torch.randn(*mask.shape, 24, requires_grad=True)
    expected = padded(PLAIN[family], embedded, mask)
    found = packing.hidden(PACKED[family].model, embedded, mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((states * weights).sum(), embedded)[0] for states in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_nothing_is_computed_for_padding() -> None:
    """The feed-forward layers see as many tokens as there are."""
    seen = []
    handle = PACKED["llama"].model.layers[0].mlp.register_forward_hook(lambda m, i, o: seen.append(o.shape[:-1]))
    mask = torch.arange(40) < torch.tensor([3, 40, 7])[:, None]
    packing.hidden(PACKED["llama"].model, torch.randn(3, 40, 24), mask)
    handle.remove()
    assert seen == [(1, 50)]


def test_other_ways_to_call_the_model_are_as_before() -> None:
    """With a mask, with a cache, and while it writes on: what re-ranking and annotating do."""
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    for plain, other in zip(PLAIN.values(), PACKED.values(), strict=True):
        answers = [
            net.generate(tokens, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)
            for net in (plain, other)
        ]
        assert torch.equal(*answers)
        states = [net.model(input_ids=tokens).last_hidden_state for net in (plain, other)]
        torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [["a dog barks", "rain"], ["rain"]])
def test_dropout_of_samples_keeps_samples_as_rows(names: list[str]) -> None:
    """What it drops is a hash of the row's seed, so a batch that is cut otherwise must not change it."""
    model, _ = assemble(small_recipe([*TINY, "lora={text: {rank: 2, dropout: 0.5}}"]), CAPTIONS)
    text = model.text.train()
    for name, parameter in text.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    found = text.tokenizer(names, max_length=20)
    tokens, mask, seeds = found["input_ids"], found["attention_mask"].bool(), torch.arange(len(names)) + 7
    with SampleDropout(seeds):
        together = text.encode(tokens, mask).pooled
    for row in range(len(names)):
        count = int(mask[row].sum())
        with SampleDropout(seeds[row : row + 1]):
            alone = text.encode(tokens[row : row + 1, :count], mask[row : row + 1, :count]).pooled
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)
