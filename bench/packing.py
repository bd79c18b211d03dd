"""What it saves to leave out padding inside a language model: seconds and tokens of a forward and backward pass.

    python -m bench.packing [--quick]

Texts have the lengths of captions behind a prompt of 12 tokens (their words are drawn from a log-normal distribution),
and sounds are clips of 1 to 10 s at 25 tokens a second behind the same prompt, as Qwen2.5-Omni's tower gives them.  The
model is a random Llama of the sizes of SmolLM2-135M; with ``--quick``, four of its thirty layers.  Both ways are
compared on the same weights and inputs: packed as Earshot does it, and padded with a mask as transformers does it.
Seconds are those of the processor, the median of rounds that take turns, so other programs hardly matter.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from training.models.multimodal import packing

PROMPT = 12


def lengths_of(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """Tokens of sequences, ``[count]``."""
    if kind == "sounds":
        return PROMPT + torch.randint(25, 251, (count,), generator=generator)
    words = torch.exp(torch.randn(count, generator=generator) * 0.45 + 2.4)  # a median of 11, as of captions
    return PROMPT + words.round().long().clamp(3, 60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a model of four layers, and fewer rounds")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    depth, rounds = (4, 3) if arguments.quick else (30, 5)
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    net = LlamaForCausalLM(LlamaConfig(num_hidden_layers=depth, vocab_size=1000, **sizes))
    figures: dict[str, float] = {}
    for kind, count in (("texts", 32), ("sounds", 8)):
        lengths = lengths_of(kind, count, torch.Generator().manual_seed(1))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        embedded = torch.randn(*mask.shape, 576)

        def padded(embedded: Tensor = embedded, mask: Tensor = mask) -> Tensor:
            states = net.model(inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False).last_hidden_state
            return states * mask[..., None]

        def packed(embedded: Tensor = embedded, mask: Tensor = mask) -> Tensor:
            return packing.hidden(net.model, embedded, mask)

        taken: dict[str, list[float]] = {"padded": [], "packed": []}
        vectors: dict[str, Tensor] = {}
        for number in range(rounds + 1):
            for name, way in (("padded", padded), ("packed", packed)):
                net.set_attn_implementation("sdpa") if name == "padded" else packing.enable(net)
                net.zero_grad()
                began = time.process_time()
                states = way()
                states.square().mean().backward()
                if number:  # the first round warms up
                    taken[name].append(time.process_time() - began)
                vectors[name] = states.detach()
        apart = float((vectors["padded"] - vectors["packed"]).abs().max())
        seconds = {name: sorted(values)[len(values) // 2] for name, values in taken.items()}
        figures |= {
            f"{kind}: tokens, of those with padding": float(mask.float().mean()),
            f"{kind}: seconds, of those with padding": seconds["packed"] / seconds["padded"],
            f"{kind}: seconds with padding": seconds["padded"],
            f"{kind}: largest difference of a state": apart,
        }
    for name, value in figures.items():
        print(f"{name:45} {value:10.3g}")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
