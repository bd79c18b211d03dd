"""Measures the loss of a global batch, forward and backward: seconds and peak memory in one process.

The head is the dot product.  Each implementation computes the same symmetric NT-Xent:

- ``earshot``: `training/objectives/pairs/tiled.py`, which also supports several positives and excluded pairs;
- ``plain tiles``: a tiled autograd Function, written without refinement;
- ``open_clip``: its ClipLoss, which keeps the whole matrix of scores;
- ``sentence-transformers``: its cached loss, both directions, in chunks of 1024 texts;
- ``floor``: four products of the batch's size and nothing else: scores, scores again, and two gradients.

Each measurement has a process of its own; memory is the peak above the inputs.  Peers run in ``.venv-peers``
(``make bench-peers``); where that is absent, they are named and left out.  With 64k samples only earshot and the floor
run.  Without a GPU the ratios are of processor seconds, which depend little on the machine's other users.

    python -m bench.loss [--quick] [--samples 1024 4096 16384 65536] [--dim 1024] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TAU = 0.05
CHUNK = 1024
PEERS = Path(__file__).resolve().parent.parent / ".venv-peers/bin/python"
HUGE = 50_000  # samples above which only earshot and the floor are measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--samples", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        found = measure(arguments.way, arguments.samples[0], arguments.dim, arguments.rounds, arguments.threads)
        print(json.dumps(found))
        return
    if arguments.quick:
        arguments.samples, arguments.rounds = [1024, 2048], 2
    here = [way for way, package in PEER_WAYS.items() if _has(package)]
    for way in PEER_WAYS.keys() - here:
        print(f"left out: {way} (not in .venv-peers: make bench-peers)")
    print(f"{'samples':>8} {'way':>22} {'seconds':>9} {'CPU s':>9} {'peak MB':>9} {'loss':>10}")
    ratios: dict[str, float] = {}
    for samples in arguments.samples:
        ratios |= compare(samples, here, arguments)
    print(json.dumps(ratios))


def compare(samples: int, peers: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    """Measure one size of batch; print a row for each way, and return its seconds and memory relative to Earshot's."""
    found: dict[str, tuple[float, float]] = {}
    for way in WAYS:
        if (way in PEER_WAYS and way not in peers) or (samples > HUGE and way not in ("floor", "earshot")):
            continue
        wall, processor, peak, loss = _apart(way, samples, arguments)
        found[way] = (wall if torch.cuda.is_available() else processor), peak
        shown = f"{wall:>9.3f} {processor:>9.3f} {peak:>9.0f} {loss:>10.5f}"
        print(f"{samples:>8} {way:>22} {shown}", flush=True)
    ratios = {}
    for way in found.keys() - {"earshot"}:
        ratios[f"{way} / earshot, seconds, {samples}"] = round(found[way][0] / found["earshot"][0], 3)
        ratios[f"{way} / earshot, memory, {samples}"] = round(found[way][1] / found["earshot"][1], 3)
    return dict(sorted(ratios.items()))


def _has(package: str) -> bool:
    """Whether the peers' environment has a package."""
    asks = f"import importlib.util as u; raise SystemExit(u.find_spec({package!r}) is None)"
    return PEERS.is_file() and subprocess.run([str(PEERS), "-c", asks], check=False).returncode == 0


def _apart(way: str, samples: int, arguments: argparse.Namespace) -> tuple[float, float, float, float]:
    """Measure in a fresh process, so that memory of one way is not memory of another."""
    python = str(PEERS) if way in PEER_WAYS else sys.executable
    sizes = [f"--samples={samples}", f"--dim={arguments.dim}", f"--rounds={arguments.rounds}"]
    done = subprocess.run(
        [python, "-m", "bench.loss", f"--way={way}", f"--threads={arguments.threads}", *sizes],
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, processor, peak, loss = json.loads(done.stdout.splitlines()[-1])
    return wall, processor, peak, loss


def measure(way: str, samples: int, dim: int, rounds: int, threads: int) -> tuple[float, float, float, float]:
    """Fastest round's seconds and processor seconds, peak MB above the inputs, and the loss."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    audio = F.normalize(torch.randn(samples, dim, device=device), dim=-1)
    text = F.normalize(audio + 0.05 * torch.randn_like(audio), dim=-1).requires_grad_()
    audio.requires_grad_()
    run = WAYS[way]()
    run(text[:256].detach().requires_grad_(), audio[:256].detach().requires_grad_())
    before = _memory(device)
    times, processor, loss = [], [], 0.0
    for _ in range(rounds):
        text.grad = audio.grad = None
        start, start_processor = time.perf_counter(), time.process_time()
        loss = float(run(text, audio).detach())
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return min(times), min(processor), _memory(device) - before, loss


def _memory(device: torch.device) -> float:
    """The peak memory so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


Way = Callable[[Tensor, Tensor], Tensor]  # text and audio to the loss, with its gradient left on both


def _with_backward(loss: Way) -> Way:
    def run(text: Tensor, audio: Tensor) -> Tensor:
        value = loss(text, audio)
        value.backward()
        return value

    return run


def floor() -> Way:
    return _with_backward(lambda text, audio: _Floor.apply(text, audio))


def plain_tiles() -> Way:
    return _with_backward(lambda text, audio: _PlainTiles.apply(text, audio))


def earshot() -> Way:
    from training.engine.distributed import LocalGroup
    from training.models.heads import build_head, dual
    from training.objectives.pairs import build_loss, ntxent
    from training.objectives.pairs.tiled import Items, global_loss

    head, loss = build_head(dual.Settings(dim=8), 8, 8), build_loss(ntxent.Settings(tau=TAU))

    def run(text: Tensor, audio: Tensor) -> Tensor:
        ids = torch.arange(len(text), device=text.device)[:, None].expand(-1, 4)
        return global_loss(head, loss, Items((text,), ids), Items((audio,), ids), LocalGroup())

    return _with_backward(run)


def open_clip() -> Way:
    from open_clip.loss import ClipLoss  # type: ignore[import-not-found, unused-ignore]

    loss = ClipLoss(local_loss=True, gather_with_grad=True)
    return _with_backward(lambda text, audio: loss(audio, text, torch.tensor(1 / TAU, device=text.device)))


def sentence_transformers() -> Way:
    from sentence_transformers import losses, util  # type: ignore[import-not-found, unused-ignore]

    loss = losses.CachedMultipleNegativesSymmetricRankingLoss(
        torch.nn.Sequential(torch.nn.Identity()), scale=1 / TAU, similarity_fct=util.dot_score, mini_batch_size=CHUNK
    )
    return lambda text, audio: loss.calculate_loss([[text], [audio]], with_backward=True)


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, text: Tensor, audio: Tensor) -> Tensor:
        ctx.save_for_backward(text, audio)
        return sum(((rows @ audio.t())[0, 0] for rows in text.split(CHUNK)), torch.zeros((), device=text.device))

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        text, audio = ctx.saved_tensors
        by_text, by_audio = torch.empty_like(text), torch.zeros_like(audio)
        for start in range(0, len(text), CHUNK):
            rows = text[start : start + CHUNK]
            scores = rows @ audio.t()
            by_text[start : start + CHUNK] = scores @ audio
            by_audio.addmm_(scores.t(), rows)
        return by_text, by_audio


class _PlainTiles(torch.autograd.Function):
    """Strips of texts against tiles of audios, single positives."""

    @staticmethod
    def forward(ctx: Any, text: Tensor, audio: Tensor) -> Tensor:
        count = len(text)
        rows, columns = text.new_full((count,), -torch.inf), text.new_full((count,), -torch.inf)
        for i in range(0, count, CHUNK):
            for j in range(0, count, CHUNK):
                logits = text[i : i + CHUNK] @ audio[j : j + CHUNK].t() / TAU
                rows[i : i + CHUNK] = torch.logaddexp(rows[i : i + CHUNK], logits.logsumexp(1))
                columns[j : j + CHUNK] = torch.logaddexp(columns[j : j + CHUNK], logits.logsumexp(0))
        ctx.save_for_backward(text, audio, rows, columns)
        return (rows + columns).mean() / 2 - (text * audio).sum(1).mean() / TAU

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        text, audio, rows, columns = ctx.saved_tensors
        count = len(text)
        by_text, by_audio = torch.zeros_like(text), torch.zeros_like(audio)
        for i in range(0, count, CHUNK):
            for j in range(0, count, CHUNK):
                logits = text[i : i + CHUNK] @ audio[j : j + CHUNK].t() / TAU
                weight = (logits - rows[i : i + CHUNK, None]).exp() + (logits - columns[j : j + CHUNK]).exp()
                weight *= cotangent / (2 * count * TAU)
                by_text[i : i + CHUNK] += weight @ audio[j : j + CHUNK]
                by_audio[j : j + CHUNK] += weight.t() @ text[i : i + CHUNK]
        scale = cotangent / (count * TAU)
        return by_text - scale * audio, by_audio - scale * text


PEER_WAYS = {"open_clip": "open_clip", "sentence-transformers": "sentence_transformers"}  # and their packages
WAYS: dict[str, Callable[[], Way]] = {
    "floor": floor,
    "open_clip": open_clip,
    "sentence-transformers": sentence_transformers,
    "plain tiles": plain_tiles,
    "earshot": earshot,
}

if __name__ == "__main__":
    main()
