"""Scoring every text against every audio, forward and backward: seconds and peak memory of each head.

Attention heads stand against the same head written with torch.nn.MultiheadAttention over all pairs
(`... plainly`), and against the dual encoder at the same batch.  Sides are given; what is measured is NT-Xent over
all their pairs and the gradients of the sides.  The plain form is measured where it fits and extrapolated
by pairs, marked `*`, beyond.  Each measurement has a process of its own; memory is the peak above the inputs.

    python -m bench.scoring [--quick] [--samples 32 128 1024] [--dim 1024] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distributed import LocalGroup
from training.encoders import EncodedAudio, EncodedText
from training.heads import build_head, coattention, dual, sentence_attention, token_attention
from training.losses import build_loss, ntxent
from training.losses.tiled import global_loss

TOKENS, SEGMENTS, AUDIO_DIM, HEADS = 32, 3, 768, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 1024])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--largest-plain", type=int, default=128, help="beyond, the plain form is extrapolated")
    parser.add_argument("--largest-coattention", type=int, default=32, help="beyond, it is extrapolated")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.dim, arguments.largest_coattention = [32], 256, 8
    limits = {"token plainly": arguments.largest_plain, "sentence plainly": arguments.largest_plain}
    limits |= {"co-attention": arguments.largest_coattention}
    print(f"{'samples':>8} {'way':>18} {'seconds':>10} {'CPU s':>10} {'peak MB':>9}")
    measured: dict[tuple[str, int], tuple[float, float, float]] = {}
    seconds: dict[tuple[str, int], float] = {}
    for samples, way in itertools.product(arguments.samples, WAYS):
        fits = min(samples, limits.get(way, samples))
        if (way, fits) not in measured:
            measured[way, fits] = _apart(way, fits, arguments)
        wall, processor, peak = measured[way, fits]
        growth = (samples / fits) ** 2
        seconds[way, samples] = processor * growth
        memory = "" if growth > 1 else f"{peak:.0f}"
        star = "*" if growth > 1 else " "
        shown = f"{wall * growth:>10.3f}{star}{processor * growth:>10.3f}{star}{memory:>8}"
        print(f"{samples:>8} {way:>18} {shown}", flush=True)
    ratios: dict[str, float] = {}
    for samples in arguments.samples:
        for plain, ours in (("token plainly", "token"), ("sentence plainly", "sentence")):
            ratios[f"{plain} / {ours}, {samples}"] = round(seconds[plain, samples] / seconds[ours, samples], 2)
        for way in ("sentence", "token", "co-attention"):
            ratios[f"{way} / dual, {samples}"] = round(seconds[way, samples] / seconds["dual", samples], 1)
    print(json.dumps(ratios))


def _apart(way: str, samples: int, arguments: argparse.Namespace) -> tuple[float, float, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (way, samples, arguments.dim, arguments.threads))


def measure(way: str, samples: int, dim: int, threads: int) -> tuple[float, float, float]:
    """Seconds, processor seconds (seconds on a GPU), and peak MB above the inputs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = WAYS[way](dim, device)
    run(*_inputs(4, dim, device))
    inputs = _inputs(samples, dim, device)
    before = _memory(device)
    start, start_processor = time.perf_counter(), time.process_time()
    run(*inputs)
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter() - start, time.process_time() - start_processor
    return wall, wall if device.type == "cuda" else processor, _memory(device) - before


def _inputs(samples: int, dim: int, device: torch.device) -> tuple[EncodedText, EncodedAudio]:
    """Captions of 8 to 32 tokens and clips of 1 to 3 segments."""
    lengths = torch.randint(8, TOKENS + 1, (samples, 1), device=device)
    counts = torch.randint(1, SEGMENTS + 1, (samples, 1), device=device)
    tokens = torch.randn(samples, TOKENS, dim, device=device)
    segments = torch.randn(samples, SEGMENTS, AUDIO_DIM, device=device)
    return (
        EncodedText(tokens, torch.arange(TOKENS, device=device) < lengths),
        EncodedAudio(segments, torch.arange(SEGMENTS, device=device) < counts),
    )


def _memory(device: torch.device) -> float:
    """Peak MB so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


Run = Callable[[EncodedText, EncodedAudio], Any]


def _head(settings: Callable[[int], Any]) -> Callable[[int, torch.device], Run]:
    """Earshot's way: sides once, pairs in tiles."""

    def make(dim: int, device: torch.device) -> Run:
        head = build_head(settings(dim), AUDIO_DIM, dim).to(device)
        loss = build_loss(ntxent.Settings())

        def run(text: EncodedText, audio: EncodedAudio) -> None:
            ids = torch.arange(len(text.tokens), device=device)[:, None].expand(-1, 4)
            global_loss(head, loss, head(text), head(audio), ids, LocalGroup()).backward()

        return run

    return make


def _plainly(sentence: bool) -> Callable[[int, torch.device], Run]:
    """papers/000 eqs. 1-7 over all pairs, one text at a time against all audios."""

    def make(dim: int, device: torch.device) -> Run:
        query, output = nn.Linear(dim, dim).to(device), nn.Linear(dim, dim).to(device)
        key, value = nn.Linear(AUDIO_DIM, dim).to(device), nn.Linear(AUDIO_DIM, dim).to(device)
        attention = nn.MultiheadAttention(dim, HEADS, batch_first=True).to(device)

        def score(tokens: Tensor, real: Tensor, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
            queries = query(tokens)[None].expand(len(keys), -1, -1)
            attended, _ = attention(queries, keys, values, key_padding_mask=padding, need_weights=False)
            cosines = F.cosine_similarity(tokens[None], output(attended), dim=-1)
            return (cosines * real).sum(1) / real.sum()

        def run(text: EncodedText, audio: EncodedAudio) -> None:
            tokens = text.tokens[:, :1] if sentence else text.tokens
            real = text.token_mask[:, :1] if sentence else text.token_mask
            keys, values = key(audio.segments), value(audio.segments)
            rows = [score(t, r, keys, values, ~audio.segment_mask) for t, r in zip(tokens, real, strict=True)]
            logits, labels = torch.stack(rows) / 0.05, torch.arange(len(rows), device=device)
            ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2).backward()

        return run

    return make


WAYS: dict[str, Callable[[int, torch.device], Run]] = {
    "dual": _head(lambda dim: dual.Settings(dim=dim)),
    "sentence plainly": _plainly(sentence=True),
    "sentence": _head(lambda dim: sentence_attention.Settings(dim=dim, heads=HEADS)),
    "token plainly": _plainly(sentence=False),
    "token": _head(lambda dim: token_attention.Settings(dim=dim, heads=HEADS)),
    "co-attention": _head(lambda dim: coattention.Settings(dim=dim, heads=HEADS, modules=1)),
}

if __name__ == "__main__":
    main()
