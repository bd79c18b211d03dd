"""The loss of a global batch, forward and backward: seconds and peak memory, one process, dot-product head.

Three ways, the same NT-Xent: the whole matrix of scores as open_clip's loss keeps it (`full matrix`), a plainly
written tiled autograd Function (`plain tiles`), and `training.losses.tiled` (`earshot`), which also knows several
positives and pairs that are left out, by ids.  The floor is four products of the batch's size: scores, scores
again, and two gradients.  Each measurement has a process of its own; memory is the peak above the inputs.  The
ratios are of processor seconds where there is no GPU: a machine that others use changes them little.

    python -m bench.loss [--quick] [--samples 1024 4096 16384] [--dim 1024] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.distributed import LocalGroup
from training.heads import build_head, dual
from training.losses import build_loss, ntxent
from training.losses.tiled import global_loss

TAU = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--samples", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.rounds = [2048], 2
    print(f"{'samples':>8} {'way':>12} {'seconds':>9} {'CPU s':>9} {'peak MB':>9} {'loss':>10}")
    ratios: dict[str, float] = {}
    for samples in arguments.samples:
        seconds: dict[str, float] = {}
        for way in WAYS:
            wall, processor, peak, loss = _apart(way, samples, arguments)
            seconds[way] = wall if torch.cuda.is_available() else processor
            shown = f"{wall:>9.3f} {processor:>9.3f} {peak:>9.0f} {loss:>10.5f}"
            print(f"{samples:>8} {way:>12} {shown}", flush=True)
        for way in WAYS:
            if way != "earshot":
                ratios[f"{way} / earshot, {samples}"] = round(seconds[way] / seconds["earshot"], 3)
    print(json.dumps(ratios))


def _apart(way: str, samples: int, arguments: argparse.Namespace) -> tuple[float, float, float, float]:
    """Measure in a fresh process, so that memory of one way is not memory of another."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (way, samples, arguments.dim, arguments.rounds, arguments.threads))


def measure(way: str, samples: int, dim: int, rounds: int, threads: int) -> tuple[float, float, float, float]:
    """Fastest round's seconds and processor seconds, peak MB above the inputs, and the loss."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    audio = F.normalize(torch.randn(samples, dim, device=device), dim=-1)
    text = F.normalize(audio + 0.05 * torch.randn_like(audio), dim=-1).requires_grad_()
    audio.requires_grad_()
    run = WAYS[way]
    warm = text[:256].detach().requires_grad_(), audio[:256].detach().requires_grad_()
    run(*warm).backward()
    before = _memory(device)
    times, processor = [], []
    for _ in range(rounds):
        text.grad = audio.grad = None
        start, start_processor = time.perf_counter(), time.process_time()
        loss = run(text, audio)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return min(times), min(processor), _memory(device) - before, float(loss.detach())


def _memory(device: torch.device) -> float:
    """Peak MB so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def floor(text: Tensor, audio: Tensor) -> Tensor:
    """Four products of the batch's size and nothing else, in strips; not a loss."""
    return _Floor.apply(text, audio)


def full_matrix(text: Tensor, audio: Tensor) -> Tensor:
    """Both directions' logits and cross-entropies over the whole batch."""
    labels = torch.arange(len(text), device=text.device)
    by_text, by_audio = text @ audio.t() / TAU, audio @ text.t() / TAU
    return (F.cross_entropy(by_text, labels) + F.cross_entropy(by_audio, labels)) / 2


def plain_tiles(text: Tensor, audio: Tensor) -> Tensor:
    return _PlainTiles.apply(text, audio)


def earshot(text: Tensor, audio: Tensor) -> Tensor:
    ids = torch.arange(len(text), device=text.device)[:, None].expand(-1, 4)
    head = build_head(dual.Settings(dim=8), 8, 8)
    return global_loss(head, build_loss(ntxent.Settings(tau=TAU)), (text,), (audio,), ids, LocalGroup())


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, text: Tensor, audio: Tensor) -> Tensor:
        ctx.save_for_backward(text, audio)
        return sum(((rows @ audio.t())[0, 0] for rows in text.split(1024)), torch.zeros(()))

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        text, audio = ctx.saved_tensors
        by_text, by_audio = torch.empty_like(text), torch.zeros_like(audio)
        for start in range(0, len(text), 1024):
            rows = text[start : start + 1024]
            scores = rows @ audio.t()
            by_text[start : start + 1024] = scores @ audio
            by_audio.addmm_(scores.t(), rows)
        return by_text, by_audio


class _PlainTiles(torch.autograd.Function):
    """Strips of 1024 texts against tiles of 1024 audios, single positives, written without refinement."""

    @staticmethod
    def forward(ctx: Any, text: Tensor, audio: Tensor) -> Tensor:
        count = len(text)
        rows, columns = text.new_full((count,), -torch.inf), text.new_full((count,), -torch.inf)
        for i in range(0, count, 1024):
            for j in range(0, count, 1024):
                logits = text[i : i + 1024] @ audio[j : j + 1024].t() / TAU
                rows[i : i + 1024] = torch.logaddexp(rows[i : i + 1024], logits.logsumexp(1))
                columns[j : j + 1024] = torch.logaddexp(columns[j : j + 1024], logits.logsumexp(0))
        ctx.save_for_backward(text, audio, rows, columns)
        return (rows + columns).mean() / 2 - (text * audio).sum(1).mean() / TAU

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        text, audio, rows, columns = ctx.saved_tensors
        count = len(text)
        by_text, by_audio = torch.zeros_like(text), torch.zeros_like(audio)
        for i in range(0, count, 1024):
            for j in range(0, count, 1024):
                logits = text[i : i + 1024] @ audio[j : j + 1024].t() / TAU
                weight = (logits - rows[i : i + 1024, None]).exp() + (logits - columns[j : j + 1024]).exp()
                weight *= cotangent / (2 * count * TAU)
                by_text[i : i + 1024] += weight @ audio[j : j + 1024]
                by_audio[j : j + 1024] += weight.t() @ text[i : i + 1024]
        scale = cotangent / (count * TAU)
        return by_text - scale * audio, by_audio - scale * text


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "floor": floor,
    "full matrix": full_matrix,
    "plain tiles": plain_tiles,
    "earshot": earshot,
}

if __name__ == "__main__":
    main()
