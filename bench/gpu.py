"""Measures training on one GPU, in six minutes and without a download: steps, losses, scoring, spectrograms, exactness.

    python -m bench.gpu [--quick] [--limit 360] [--only NAME ...]

Without a GPU the same code runs in miniature on the CPU; its times then mean nothing.  The parts are

- ``rate``: the rate of a large product of matrices in bfloat16, to which the others are compared;
- ``step``: a step of the dual encoder of Calvet and Toledano (PaSST and RoBERTa-large with random weights, clips of
  30 s, batch 128, bfloat16), plain and with ``torch.compile``; and the same model in a bare loop with float16 and the
  negatives of one GPU alone, as the published baseline trains it;
- ``multimodal``: a step of the recipe `aurola` as one of eight GPUs takes it: 64 clips of 10 s and 64 captions through
  a random model of Qwen2.5-Omni-3B's size with adapters (the sizes of its tower, and as many parameters in the blocks
  of the language model), recomputing activations; also the operations of a step as torch counts them;
- ``loss``: the tiled loss, forward and backward, beside one that keeps the whole matrix of scores, as open_clip's does;
- ``scoring``: all pairs of a batch through token-level attention and through co-attention, forward and backward;
- ``spectrogram``: clips a second on the device, beside hear21passt's own front end;
- ``zero``: the losses of three steps at ZeRO stages 0 to 3, which must agree within the rounding of bfloat16;
- ``resume``: four steps, and two with two more after a new start; the weights must be equal to the last bit.

A part that would begin after the limit is left out by name.  The exit status is 1 where ``zero`` or ``resume`` fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu_sizes import FULL, MINIATURE, Sizes
from training.config.loading import load_recipe
from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor, segment_seeds
from training.engine.distributed import Group, LocalGroup
from training.engine.launch import ranks
from training.engine.schedule import make_schedule
from training.engine.step import Engine
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads import build_head, coattention, token_attention
from training.models.heads.base import DotProduct
from training.objectives.pairs import build_loss, ntxent
from training.objectives.pairs.tiled import Items, global_loss
from training.run.quiet import quiet
from training.tasks.retrieval import RetrievalTask, assemble

ROUNDING = 2e-2  # relative: bfloat16 has 8 bits, and a loss is a mean of many rounded scores
Figures = dict[str, float]


class Timer:
    """Seconds of calls on a device, and its peak memory."""

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds

    def __call__(self, call: Callable[[], Any], warm: int = 2) -> float:
        """The median seconds of a call."""
        taken = []
        for number in range(self.rounds + warm):
            self._wait()
            began = time.perf_counter()
            call()
            self._wait()
            if number >= warm:
                taken.append(time.perf_counter() - began)
        return sorted(taken)[len(taken) // 2]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def peak(self) -> Iterator[Callable[[], float]]:
        """Return a function that returns the peak memory in GB since the block began; 0 without a GPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield lambda: torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the miniature, also on a GPU")
    parser.add_argument("--limit", type=float, default=360.0, help="seconds after which no further part begins")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = FULL if device.type == "cuda" and not arguments.quick else MINIATURE
    began = time.monotonic()
    figures: Figures = {}
    with ranks() as group:
        for name in arguments.only:
            if time.monotonic() - began > arguments.limit:
                print(f"{name}: left out, {arguments.limit:g} s have passed")
                continue
            found = PARTS[name](sizes, Timer(device, sizes.rounds), group)
            figures |= {f"{name}: {what}": value for what, value in found.items()}
            for what, value in found.items():
                print(f"{name:12} {what:52} {value:12.4g}", flush=True)
    described = torch.cuda.get_device_name() if device.type == "cuda" else "cpu, in miniature"
    print(json.dumps({"device": described, "torch": torch.__version__, **figures}))
    failed = [name for name in FAILURES if figures.get(name, 0.0) > 0]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def rate(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """TFLOP/s of a product of two square matrices in bfloat16."""
    left, right = torch.randn(2, sizes.matrix, sizes.matrix, device=timer.device, dtype=torch.bfloat16)
    return {"TFLOP/s of a product in bf16": 2 * sizes.matrix**3 / timer(lambda: left @ right) / 1e12}


def step(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """Steps of the dual encoder: the engine's, compiled, and those of the published baseline."""
    figures: Figures = {}
    batch = make_batch(sizes.batch).to(timer.device)
    flops = count_flops(sizes, timer.device)
    product = rate(sizes, timer, group)["TFLOP/s of a product in bf16"]
    for name, more in (("plain", ()), ("compiled", ("engine.compile=true",))):
        if name == "compiled" and timer.device.type != "cuda":
            continue
        with timer.peak() as peak:
            engine = make_engine(recipe_of(sizes, *more), group)
            taken = timer(partial(engine.step, batch))
            figures |= _speed(f"bf16, every negative, {name}", taken, sizes.batch, flops, product, peak())
            engine.close()
            del engine
    with timer.peak() as peak:
        taken = timer(published_step(sizes, batch, timer.device))
        figures |= _speed("fp16, one GPU's negatives, bare", taken, sizes.batch, flops, product, peak())
    return figures


def _speed(name: str, taken: float, clips: int, flops: float, product: float, peak: float) -> Figures:
    figures = {f"{name}: s a step": taken, f"{name}: clips/s": clips / taken}
    figures[f"{name}: share of the rate of a product"] = flops / taken / 1e12 / product
    return figures | ({f"{name}: peak GB": peak} if peak else {})


def recipe_of(sizes: Sizes, *more: str) -> Recipe:
    return load_recipe("dual_encoder", [*sizes.overrides, f"data.batch_size={max(2, sizes.batch)}", *more])


def multimodal(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """A step of one multimodal language model as both encoders, with adapters."""
    recipe = load_recipe("aurola", [*sizes.multimodal, f"data.batch_size={max(2, sizes.heard)}"])
    batch = make_batch(sizes.heard, segments=1, tokens=60).to(timer.device)
    product = rate(sizes, timer, group)["TFLOP/s of a product in bf16"]
    with timer.peak() as peak:
        engine = make_engine(recipe, group)
        with FlopCounterMode(display=False) as counter:
            engine.step(batch)
        flops = float(counter.get_total_flops())
        figures = _speed("3B, adapters", timer(partial(engine.step, batch)), sizes.heard, flops, product, peak())
        engine.close()
    return figures | {
        "TFLOP of a step": flops / 1e12,
        "TFLOP of a step by arithmetic": _arithmetic(recipe, sizes) / 1e12,
    }


def _arithmetic(recipe: Recipe, sizes: Sizes) -> float:
    """6 operations for each parameter and token: forward, recomputed, backward; frozen weights have no gradient."""
    audio: Any = recipe.audio
    text: Any = recipe.text
    blocks = {"audio": 12 * audio.depth * audio.width**2, "text": 16 * text.depth * text.width**2}
    tokens = {"audio": 500 * sizes.heard, "text": (250 + 60) * sizes.heard}  # of prompts, those of the captions alone
    return 6.0 * sum(blocks[part] * tokens[part] for part in blocks)


def make_batch(size: int, segments: int = 3, seed: int = 0, tokens: int = 20) -> Batch:
    """A random batch: clips of 10 s for each segment, and captions."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(size)
    columns: dict[str, Any] = dict.fromkeys(("clip", "caption", "group", "kin", "seeds"), ids)
    return Batch(
        features=torch.randn(size, segments, 128, 1000, generator=generator),
        frames=torch.full((size, segments), 1000),
        tokens=torch.randint(5, 200, (size, tokens), generator=generator),
        token_mask=torch.ones(size, tokens, dtype=torch.bool),
        tags=torch.zeros(size, 0, dtype=torch.int64),
        heard_s=torch.zeros(size, 2, dtype=torch.float64),
        valid=torch.ones(size, dtype=torch.bool),
        keys=[str(number) for number in range(size)],
        texts=[""] * size,
        labels=[[] for _ in range(size)],
        failures=[],
        name_part=0,
        **columns,
    )


def make_engine(recipe: Recipe, group: Group) -> Engine:
    with quiet():
        model, loss = assemble(recipe, ["one two three"])
    return Engine(RetrievalTask(model, loss), recipe, make_schedule(recipe.optimizer, 100), group)


def count_flops(sizes: Sizes, device: torch.device) -> float:
    """Operations of a forward and backward pass of a step's encoders, counted on one clip and scaled."""
    with quiet():
        model, _ = assemble(recipe_of(sizes), ["one two three"])
    model, one = model.to(device).train(), make_batch(1).to(device)
    with FlopCounterMode(display=False) as counter:
        (audio,) = model.audio_side(one.features, one.frames, one.seeds)
        (text,) = model.text_side(one.tokens, one.token_mask)
        (audio.sum() + text.sum()).backward()
    return float(counter.get_total_flops()) * sizes.batch


def published_step(sizes: Sizes, batch: Batch, device: torch.device) -> Callable[[], float]:
    """A step of the challenge's baseline: float16 with a scaled loss, negatives of this GPU alone, Adam."""
    with quiet():
        model, _ = assemble(recipe_of(sizes), ["one two three"])
    model = model.to(device).train()
    optimizer, scaler = torch.optim.Adam(model.parameters(), lr=1e-5), torch.amp.GradScaler(device.type)
    target = torch.arange(len(batch), device=device)

    def take() -> float:
        with torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16):
            (audio,) = model.audio_side(batch.features, batch.frames, batch.seeds)
            (text,) = model.text_side(batch.tokens, batch.token_mask)
        logits = text.float() @ audio.float().t() / 0.05
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return take


def loss(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """Seconds and memory of the tiled loss, and of a loss that keeps all scores."""
    figures: Figures = {}
    for count in sizes.losses:
        for name, way in (("tiled", _tiled), ("whole matrix", _whole)):
            text, audio = _vectors(count, sizes.dim, timer.device), _vectors(count, sizes.dim, timer.device)
            try:
                with timer.peak() as peak:
                    figures[f"{count} pairs, {name}: s"] = timer(partial(_backward, way, text, audio), warm=1)
                    figures |= {f"{count} pairs, {name}: peak GB": peak()} if peak() else {}
            except torch.OutOfMemoryError:
                print(f"loss         {count} pairs, {name}: does not fit into memory")
    return figures


def _vectors(count: int, dim: int, device: torch.device) -> Tensor:
    return F.normalize(torch.randn(count, dim, device=device), dim=-1).requires_grad_()


def _backward(way: Callable[[Tensor, Tensor], Tensor], text: Tensor, audio: Tensor) -> None:
    way(text, audio).backward()


def _tiled(text: Tensor, audio: Tensor) -> Tensor:
    ids = torch.arange(len(text), device=text.device)[:, None].expand(-1, 4)
    sides = Items((text,), ids), Items((audio,), ids)
    return global_loss(DotProduct(), build_loss(ntxent.Settings()), *sides, LocalGroup())


def _whole(text: Tensor, audio: Tensor) -> Tensor:
    logits, target = text @ audio.t() / 0.05, torch.arange(len(text), device=text.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def scoring(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """Seconds of NT-Xent over all pairs of a batch through heads with attention, forward and backward."""
    figures: Figures = {}
    chosen = (
        token_attention.Settings(name="token-attention", dim=sizes.dim),
        coattention.Settings(name="co-attention", dim=sizes.dim),
    )
    for settings in chosen:
        name, count, device = settings.name, sizes.scored[settings.name], timer.device
        head = build_head(settings, 768, 1024).to(device)
        audio = EncodedAudio(
            torch.randn(count, 3, 768, device=device, requires_grad=True),
            torch.ones(count, 3, dtype=torch.bool, device=device),
        )
        words = torch.randn(count, 20, 1024, device=device, requires_grad=True)
        text = EncodedText(words, torch.ones(count, 20, dtype=torch.bool, device=device), words[:, 0])
        if head.uses_patches:
            patches = torch.randn(count, 60, 768, device=device, requires_grad=True)
            audio = replace(audio, tokens=patches, token_mask=torch.ones(count, 60, dtype=torch.bool, device=device))
        ids = torch.arange(count, device=device)[:, None].expand(-1, 4)

        def run(head: Any = head, text: EncodedText = text, audio: EncodedAudio = audio, ids: Tensor = ids) -> None:
            sides = Items(tuple(head.text_side(text)), ids), Items(tuple(head.audio_side(audio)), ids)
            global_loss(head, build_loss(ntxent.Settings()), *sides, LocalGroup()).backward()

        with timer.peak() as peak:
            figures[f"{name}, {count} x {count}: s"] = timer(run, warm=1)
            figures |= {f"{name}, {count} x {count}: peak GB": peak()} if peak() else {}
    return figures


def spectrogram(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """Clips of 10 s a second through PaSST's front end on the device, beside hear21passt's own."""
    audio = AudioInput("passt", 32_000, 10.0, 10.0, 10.0)
    masks = MaskingSettings(time_masks=1, freq_masks=1)
    extractor = FeatureExtractor(audio, masks, train=True)
    waves = torch.randn(sizes.clips, audio.segment, device=timer.device) * 0.1
    lengths = torch.full((sizes.clips,), audio.segment, device=timer.device)
    seeds = torch.from_numpy(segment_seeds(0, sizes.clips)).to(timer.device)
    figures = {"earshot: clips/s": sizes.clips / timer(lambda: extractor(waves, lengths, seeds))}
    with quiet():
        from hear21passt.models.preprocess import AugmentMelSTFT

        own = AugmentMelSTFT(sr=32_000, hopsize=320, freqm=48, timem=192).to(timer.device).train()
    with torch.no_grad():
        figures["hear21passt: clips/s"] = sizes.clips / timer(lambda: own(waves))
    return figures


def zero(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """The largest relative difference of three losses to those of stage 0."""
    figures: Figures = {}
    courses: dict[int, list[float]] = {}
    for stage in range(4):
        engine = make_engine(_exact(sizes, f"engine.zero={stage}"), group)
        courses[stage] = [engine.step(make_batch(4, 1, seed)).loss for seed in range(3)]
        engine.close()
    for stage in (1, 2, 3):
        pairs = zip(courses[0], courses[stage], strict=True)
        figures[f"stage {stage} against 0, relative"] = max(abs(a - b) / abs(a) for a, b in pairs)
    figures["failed"] = float(any(value > ROUNDING for value in figures.values()))
    return figures


def _exact(sizes: Sizes, *more: str) -> Recipe:
    """A recipe with few samples, and with a learning rate that is high enough to change weights visibly."""
    return recipe_of(sizes, "optimizer.lr=1e-4", "data.batch_size=4", *more)


def resume(sizes: Sizes, timer: Timer, group: Group) -> Figures:
    """How many weights differ after a new start in the middle of four steps."""
    recipe = _exact(sizes)
    whole = make_engine(recipe, group)
    for seed in range(2):
        whole.step(make_batch(4, 1, seed))
    weights, moments = whole.parameters(), whole.optimizer_moments()
    frozen, updates = whole.frozen_parameters(), whole.updates
    for seed in (2, 3):
        whole.step(make_batch(4, 1, seed))
    expected = whole.parameters()
    whole.close()
    model, objective = assemble(recipe, ["one two three"])
    task = RetrievalTask(model, objective)
    with torch.no_grad():
        for name, tensor in task.tensors().items():
            tensor.copy_((weights | frozen)[name])
    again = Engine(task, recipe, make_schedule(recipe.optimizer, 100), group, moments, step=2, updates=updates)
    for seed in (2, 3):
        again.step(make_batch(4, 1, seed))
    found = again.parameters()
    again.close()
    differ = sum(int((found[name] != value).sum()) for name, value in expected.items())
    return {"weights": float(sum(value.numel() for value in expected.values())), "failed": float(differ)}


PARTS: dict[str, Callable[[Sizes, Timer, Group], Figures]] = {
    "rate": rate,
    "step": step,
    "multimodal": multimodal,
    "loss": loss,
    "scoring": scoring,
    "spectrogram": spectrogram,
    "zero": zero,
    "resume": resume,
}
FAILURES = ("zero: failed", "resume: failed")

if __name__ == "__main__":
    sys.exit(main())
