"""Measures how long each head takes to score every text against every audio, forward and backward, and its memory.

Attention heads are compared with the same head written with torch's own layers over all pairs (`... plainly`), and with
the dual encoder at the same batch.  Encoders are not part of the measurement: it covers NT-Xent over all pairs and the
gradients of the head, of encoded texts and clips that need none, as with frozen encoders.  Measurements that would take
too long are extrapolated by the number of pairs from the largest measured batch, and marked `*`.  Each measurement has
a process of its own, and is the least of up to five turns; memory is the peak above the inputs.  On a CPU a last row
has the matrix products of token-level attention alone, at the rate of products ``[1024, 1024]``: what the rest costs is
the difference.

Co-attention on the nearest candidates alone is cheaper, but biased.  For the second table a small head is trained on a
task with a known answer; loss and gradient on a new batch are then compared with those of all pairs.

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
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from training.engine.distributed import LocalGroup
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import build_head, coattention, dual, sentence_attention, token_attention
from training.models.heads.base import rough_scores
from training.objectives.pairs import build_loss, ntxent
from training.objectives.pairs.tiled import Items, global_loss

TOKENS, SEGMENTS, AUDIO_DIM, HEADS = 32, 3, 768, 8
CANDIDATES = 16
TURNS, ENOUGH_S = 5, 10.0  # of a measurement, at most
T = TypeVar("T")
PROCESSES = multiprocessing.get_context("forkserver")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 1024])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--largest-plain", type=int, default=128, help="beyond, plain attention is extrapolated")
    parser.add_argument("--largest-coattention", type=int, default=32, help="beyond, it is extrapolated")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.dim, arguments.largest_coattention = [32], 256, 8
    PROCESSES.set_forkserver_preload(["training.objectives.pairs.tiled"])
    ratios = time_and_memory(arguments)
    ratios |= bias(Task(dim=32, batch=32, steps=60) if arguments.quick else Task())
    print(json.dumps(ratios))


def time_and_memory(arguments: argparse.Namespace) -> dict[str, float]:
    """The first table, and its ratios."""
    limits = dict.fromkeys(("sentence plainly", "token plainly"), arguments.largest_plain)
    limits |= {way: arguments.largest_coattention for way in WAYS if way.startswith("co-attention")}
    print(f"{'samples':>8} {'way':>27} {'seconds':>10} {'CPU s':>10} {'peak MB':>9}")
    measured: dict[tuple[str, int], tuple[float, float, float]] = {}
    seconds: dict[tuple[str, int], float] = {}
    memory: dict[tuple[str, int], float] = {}
    for samples, way in itertools.product(arguments.samples, WAYS):
        fits = min(samples, limits.get(way, samples))
        if (way, fits) not in measured:
            measured[way, fits] = _apart(measure, way, fits, arguments)
        wall, processor, peak = measured[way, fits]
        growth = pairs(way, samples) / pairs(way, fits)
        seconds[way, samples] = processor * growth
        if fits == samples:
            memory[way, samples] = peak
        star, shown_peak = ("*", "") if fits < samples else (" ", f"{peak:.0f}")
        shown = f"{wall * growth:>10.3f}{star}{processor * growth:>10.3f}{star}{shown_peak:>8}"
        print(f"{samples:>8} {way:>27} {shown}", flush=True)
    ratios: dict[str, float] = {}
    for samples in arguments.samples:
        for way in ("sentence", "token", "co-attention"):
            plain = f"{way} plainly"
            ratios[f"{plain} / {way}, {samples}"] = round(seconds[plain, samples] / seconds[way, samples], 2)
            if (plain, samples) in memory and (way, samples) in memory:
                ratios[f"{plain} / {way}, MB, {samples}"] = round(
                    memory[plain, samples] / max(memory[way, samples], 1), 1
                )
            ratios[f"{way} / dual, {samples}"] = round(seconds[way, samples] / seconds["dual", samples], 1)
        if not torch.cuda.is_available():
            alone = _apart(products, "token", samples, arguments)
            print(f"{samples:>8} {'token, its products alone':>27} {'':>11}{alone:>10.3f}", flush=True)
            ratios[f"token / its products alone, {samples}"] = round(seconds["token", samples] / alone, 2)
    return ratios


def pairs(way: str, samples: int) -> int:
    """How many pairs an implementation scores; extrapolation is proportional to this number."""
    return min(samples**2, (2 * CANDIDATES + 1) * samples) if "candidates" in way else samples**2


def _apart(function: Callable[..., T], way: str, samples: int, arguments: argparse.Namespace) -> T:
    with ProcessPoolExecutor(1, PROCESSES) as pool:
        try:
            return pool.submit(function, way, samples, arguments.dim, arguments.threads).result()
        except BrokenProcessPool as error:
            remedy = "leave more memory free, or choose --largest-plain or --largest-coattention below it"
            raise SystemExit(f"{way} at {samples}: its process was killed\n  remedy: {remedy}") from error


def measure(way: str, samples: int, dim: int, threads: int) -> tuple[float, float, float]:
    """Seconds, processor seconds (seconds on a GPU), and peak MB above the inputs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = WAYS[way](dim, device)
    run(*_inputs(4, dim, device))
    inputs = _inputs(samples, dim, device)
    before = _memory(device)
    walls: list[float] = []
    processors: list[float] = []
    while len(walls) < TURNS and sum(walls) < ENOUGH_S:
        start, start_processor = time.perf_counter(), time.process_time()
        run(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - start)
        processors.append(time.process_time() - start_processor)
    wall = min(walls)
    return wall, wall if device.type == "cuda" else min(processors), _memory(device) - before


def products(way: str, samples: int, dim: int, threads: int) -> float:
    """Processor seconds of an implementation's matrix products alone, at the rate of products ``[1024, 1024]``."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run, inputs = WAYS[way](dim, torch.device("cpu")), _inputs(samples, dim, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        run(*inputs)
    left, right = torch.randn(2, 1024, 1024)
    each = []
    for _ in range(20):
        start = time.process_time()
        left @ right
        each.append(time.process_time() - start)
    return float(counter.get_total_flops()) * min(each) / (2 * 1024**3)


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
    """The peak memory so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


Run = Callable[[EncodedText, EncodedAudio], Any]


def _head(settings: Callable[[int], Any]) -> Callable[[int, torch.device], Run]:
    """Earshot's own head, which scores pairs in tiles."""

    def make(dim: int, device: torch.device) -> Run:
        head = build_head(settings(dim), AUDIO_DIM, dim).to(device)
        loss = build_loss(ntxent.Settings())

        def run(text: EncodedText, audio: EncodedAudio) -> None:
            ids = torch.arange(len(text.tokens), device=device)[:, None].expand(-1, 4)
            head.global_batch = len(ids)  # as training tells it
            global_loss(head, loss, Items(head(text), ids), Items(head(audio), ids), LocalGroup()).backward()

        return run

    return make


def _plainly(sentence: bool) -> Callable[[int, torch.device], Run]:
    """Calvet and Toledano 2025 eqs. 1-7 over all pairs, one text at a time against all audios."""

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


def _coattention_plainly(dim: int, device: torch.device) -> Run:
    """Co-Attention 2024, one module, with torch's own layers, every pair of the batch at once."""
    text_in, audio_in = nn.Linear(dim, dim).to(device), nn.Linear(AUDIO_DIM, dim).to(device)
    text_cross, audio_cross = (nn.MultiheadAttention(dim, HEADS, batch_first=True).to(device) for _ in range(2))
    norms = [nn.LayerNorm(dim).to(device) for _ in range(4)]
    forward = [nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim)).to(device) for _ in range(2)]

    def mean(vectors: Tensor, mask: Tensor) -> Tensor:
        return (vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def run(text: EncodedText, audio: EncodedAudio) -> None:
        size = len(text.tokens)
        rows, columns = (i.flatten() for i in torch.meshgrid(*[torch.arange(size, device=device)] * 2, indexing="ij"))
        tokens, real = text_in(text.tokens)[rows], text.token_mask[rows]
        sounds, present = audio_in(audio.segments)[columns], audio.segment_mask[columns]
        to_text, _ = text_cross(tokens, sounds, sounds, key_padding_mask=~present, need_weights=False)
        to_audio, _ = audio_cross(sounds, tokens, tokens, key_padding_mask=~real, need_weights=False)
        tokens, sounds = norms[0](tokens + to_text), norms[1](sounds + to_audio)
        tokens, sounds = norms[2](tokens + forward[0](tokens)), norms[3](sounds + forward[1](sounds))
        scores = F.cosine_similarity(mean(tokens, real), mean(sounds, present), dim=-1).view(size, size)
        logits, labels = scores / 0.05, torch.arange(size, device=device)
        ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2).backward()

    return run


WAYS: dict[str, Callable[[int, torch.device], Run]] = {
    "dual": _head(lambda dim: dual.Settings(dim=dim)),
    "sentence plainly": _plainly(sentence=True),
    "sentence": _head(lambda dim: sentence_attention.Settings(dim=dim, heads=HEADS)),
    "token plainly": _plainly(sentence=False),
    "token": _head(lambda dim: token_attention.Settings(dim=dim, heads=HEADS)),
    "co-attention plainly": _coattention_plainly,
    "co-attention": _head(lambda dim: coattention.Settings(dim=dim, heads=HEADS, modules=1)),
    f"co-attention, {CANDIDATES} candidates": _head(
        lambda dim: coattention.Settings(dim=dim, heads=HEADS, modules=1, candidates=CANDIDATES)
    ),
}


@dataclass(frozen=True)
class Task:
    """Captions and clips that are two noisy views of one hidden vector.

    Attributes:
        dim: width of the head.
        batch: samples of a batch.
        steps: the steps of training on all pairs, before anything is compared.
        noise: the noise of each view, relative to what it shares with the other.
        hidden: width of what they share.
    """

    dim: int = 64
    batch: int = 64
    steps: int = 100
    noise: float = 4.0
    hidden: int = 16

    def draw(self, generator: torch.Generator) -> tuple[EncodedText, EncodedAudio]:
        world = torch.Generator().manual_seed(1)
        views = [torch.randn(self.hidden, width, generator=world) / self.hidden**0.5 for width in (self.dim, AUDIO_DIM)]
        shared = torch.randn(self.batch, 1, self.hidden, generator=generator)
        words, sounds = (
            shared @ view + self.noise * torch.randn(self.batch, count, view.shape[1], generator=generator)
            for view, count in zip(views, (6, SEGMENTS), strict=True)
        )
        real, present = (torch.ones(x.shape[:2], dtype=torch.bool) for x in (words, sounds))
        return EncodedText(words, real), EncodedAudio(sounds, present)


def bias(task: Task) -> dict[str, float]:
    """The second table: loss and gradient of the nearest candidates against those of all pairs."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    settings = coattention.Settings(dim=task.dim, heads=HEADS, modules=1)
    head: Any = build_head(settings, AUDIO_DIM, task.dim)
    loss = build_loss(ntxent.Settings())
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)
    for _ in range(task.steps):
        optimizer.zero_grad()
        _loss_of(head, loss, *task.draw(generator)).backward()
        optimizer.step()
    text, audio = task.draw(generator)
    exact, gradient = _gradient(head, loss, text, audio)
    with torch.no_grad():
        sides = head(text), head(audio)
        best = head.score(*sides).argmax(1, keepdim=True)
        rough: Any = rough_scores(head, *sides, head.shared())
    print(f"\n{task.batch} pairs after {task.steps} steps: loss {float(exact):.3f}")
    print(f"{'candidates':>10} {'loss':>8} {'cosine':>8} {'length':>8} {'best clip among the first':>26}")
    ratios = {}
    for count in (4, 8, 16, 32):
        head.candidates = count
        value, partial = _gradient(head, loss, text, audio)
        cosine = float(F.cosine_similarity(partial, gradient, dim=0))
        length = float(partial.norm() / gradient.norm())
        among = float((rough.topk(min(count, task.batch), 1).indices == best).any(1).double().mean())
        print(f"{count:>10} {float(value):>8.3f} {cosine:>8.4f} {length:>8.3f} {among:>26.3f}")
        ratios[f"{count} candidates: gradient's cosine"] = round(cosine, 4)
        ratios[f"{count} candidates: loss / loss of all"] = round(float(value / exact), 4)
        ratios[f"{count} candidates: best clip among them"] = round(among, 3)
    return ratios


def _loss_of(head: Any, loss: Any, text: EncodedText, audio: EncodedAudio) -> Tensor:
    ids = torch.arange(len(text.tokens))[:, None].expand(-1, 4)
    return global_loss(head, loss, Items(head(text), ids), Items(head(audio), ids), LocalGroup())


def _gradient(head: Any, loss: Any, text: EncodedText, audio: EncodedAudio) -> tuple[Tensor, Tensor]:
    value = _loss_of(head, loss, text, audio)
    gradients = torch.autograd.grad(value, list(head.parameters()), allow_unused=True, materialize_grads=True)
    return value.detach(), torch.cat([g.flatten() for g in gradients])


if __name__ == "__main__":
    main()
