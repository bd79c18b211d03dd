"""The sizes of everything that ``bench.gpu`` measures: on a GPU, and in miniature on a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of everything that is measured.

    Attributes:
        overrides: changes of the recipe dual_encoder.
        batch: clips of a step.
        matrix: side of the matrices of ``rate``.
        losses: batches of ``loss``, and the largest that keeps the whole matrix.
        dim: the width of the vectors that are scored.
        scored: clips of ``scoring`` by head.
        clips: clips of 10 s of ``spectrogram``.
        multimodal: overrides of the recipe aurola.
        heard: clips of 10 s of ``multimodal``.
        rounds: how often each thing is timed; the median counts.
    """

    overrides: tuple[str, ...]
    batch: int
    matrix: int
    losses: tuple[int, ...]
    dim: int
    scored: dict[str, int]
    clips: int
    multimodal: tuple[str, ...]
    heard: int
    rounds: int


RANDOM = ("audio.source=random", "text.source=random", "optimizer.steps=100", "optimizer.warmup_epochs=0")
MULTIMODAL = (  # 250 tokens of 10 s, as Qwen2.5-Omni's tower gives them; blocks of 2.7 and 0.63 billion parameters
    "audio={encoder: multimodal, source: random, bins: 128, width: 1280, depth: 32, heads: 20, segment_s: 10, join: 2}",
    "text={encoder: multimodal, source: random, width: 2048, depth: 40, heads: 16, vocabulary: 300}",
    *("optimizer.steps=100", "optimizer.warmup_epochs=0", "engine.dropout=torch"),
)
SMALL_MULTIMODAL = (
    "audio={encoder: multimodal, source: random, bins: 128, width: 32, depth: 2, heads: 2, segment_s: 10, join: 2}",
    "text={encoder: multimodal, source: random, width: 64, depth: 2, heads: 2, vocabulary: 300}",
    "lora={audio: {rank: 4}, text: {rank: 4}}",
    *MULTIMODAL[2:],
)
SCORED = {"token-attention": 512, "co-attention": 64}
FULL = Sizes(RANDOM, 128, 8192, (16_384, 65_536), 1024, SCORED, 256, MULTIMODAL, 64, 5)
SMALL_MODEL = (
    *("audio.variant=custom", "audio.width=32", "audio.depth=2", "audio.heads=2"),
    *("text.width=32", "text.depth=1", "text.heads=2", "text.vocabulary=300", "head.dim=32"),
)
FEW = {"token-attention": 4, "co-attention": 2}
MINIATURE = Sizes((*RANDOM, *SMALL_MODEL), 2, 256, (256,), 32, FEW, 2, SMALL_MULTIMODAL, 2, 2)
