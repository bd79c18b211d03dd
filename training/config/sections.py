"""The sections of a recipe as frozen dataclasses; a section checks its own values when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from training.config.checks import require
from training.data.settings import DataSettings
from training.models.encoders.lora import LoraSettings


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer, the learning rate schedule, and which parameters are trained.

    The learning rate rises linearly to ``lr`` within ``warmup_epochs`` and then falls as half a cosine to
    ``final_lr`` at the end; where the run is no longer than that, it rises within a tenth of the steps.
    ``rates`` and ``freeze`` name parameters by glob (``audio.*``, ``text.*.layer.[0-7].*``); the first glob of
    ``rates`` that matches counts.  ``layer_decay`` multiplies the rate of a block once for every block between it
    and the top of its encoder.
    """

    clip: float  # largest norm of the gradient over all parameters; 0: the gradient is never clipped
    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 2e-5
    final_lr: float = 1e-7
    warmup_epochs: float = 1.0
    epochs: float = 10.0
    steps: int | None = None  # length of the run in steps instead of epochs
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    rates: dict[str, float] = field(default_factory=dict)  # glob of parameter names: factor on the rate
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()  # globs of the names of parameters that are not trained
    freeze_below: dict[str, int] = field(default_factory=dict)  # audio or text: the lowest block that is trained

    def __post_init__(self) -> None:
        require(self.clip >= 0, "clip must be 0 (never clip) or a positive norm", self.clip)
        require(
            self.lr > 0 and self.final_lr >= 0, "lr must be positive, and final_lr 0 or more", (self.lr, self.final_lr)
        )
        require(self.final_lr <= self.lr, "final_lr is above lr: the rate would rise to the end", self.final_lr)
        require(0 < self.epochs < 1e9, "epochs must be positive, and below a thousand million", self.epochs)
        require(self.steps is None or self.steps > 0, "steps must be positive", self.steps)
        require(self.warmup_epochs >= 0, "warmup_epochs must not be negative", self.warmup_epochs)
        require(
            set(self.freeze_below) <= {"audio", "text"},
            "freeze_below takes the keys audio and text",
            self.freeze_below,
        )
        require(0 < self.layer_decay <= 1, "layer_decay must be in (0, 1]", self.layer_decay)
        require(all(rate >= 0 for rate in self.rates.values()), "rates must not be negative", self.rates)
        highest = self.lr * max((1.0, *self.rates.values()))
        require(highest < 1e38, "lr times the highest of rates must be a number of float32, below 1e38", highest)
        require(all(0 <= beta < 1 for beta in self.betas), "betas must be in [0, 1)", self.betas)
        require(self.eps >= 1e-30, "eps must be at least 1e-30: where a gradient is 0, Adam divides 0 by it", self.eps)
        require(self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay)


@dataclass(frozen=True)
class EngineSettings:
    """How a step is computed.

    These settings change results by rounding alone.  Four of them decide more: ``ema`` decides which weights are
    exported, ``nonfinite`` decides whether a run goes on after a step that is not finite, ``dropout`` decides what is
    drawn, and ``frozen`` rounds weights that are not trained.
    """

    zero: Literal[0, 1, 2, 3] = 1  # DeepSpeed's ZeRO stage: what is sharded over the ranks
    dtype: Literal["fp32", "bf16"] = "fp32"
    chunk: int = 0  # samples that a rank encodes at once in the cached step; 0: the plain step
    activation_checkpointing: bool = False
    ema: float = 0.0  # decay per step of the averaged weights, which are then exported; 0: no average
    nonfinite: Literal["stop", "skip"] = "stop"  # what to do with a step whose loss or gradient is NaN or infinite
    max_skipped: float = 0.1  # largest share of the steps that may be skipped, checked at the end of each epoch
    compile: bool = False  # torch.compile on the encoders' blocks: faster on GPUs, takes minutes at the start
    # "torch": dropout from torch's generator, which is seeded by step, rank and chunk, with fused attention;
    # "sample": dropout is a hash of the sample's seed, so that any number of ranks and chunks drops the same
    dropout: Literal["torch", "sample"] = "torch"
    frozen: Literal["fp32", "bf16"] = "fp32"  # the precision in which weights that are not trained are kept
    matmul: Literal["highest", "high", "medium"] = "highest"  # torch's precision of float32 products on GPUs

    def __post_init__(self) -> None:
        require(self.chunk >= 0, "chunk must be 0 (plain step) or a number of samples", self.chunk)
        require(0 <= self.ema < 1, "ema must be in [0, 1)", self.ema)
        require(0 <= self.max_skipped <= 1, "max_skipped must be a share, from 0 to 1", self.max_skipped)
        require(
            self.frozen == "fp32" or self.dtype == "bf16",
            "frozen weights in bf16 need dtype: bf16, or they would meet float32 activations",
            self.frozen,
        )


@dataclass(frozen=True)
class CheckpointSettings:
    """When a run writes checkpoints, and which of them it keeps."""

    every: int = 0  # steps between checkpoints; 0: at the end of every epoch. A validation writes one as well
    keep_last: int = 2
    keep_best: int = 1  # checkpoints with the best validation metric; 0: a validation writes no checkpoint

    def __post_init__(self) -> None:
        require(self.every >= 0, "every must be 0 (each epoch) or a number of steps", self.every)
        require(self.keep_last >= 1, "keep_last must be at least 1, or the run could not be resumed", self.keep_last)
        require(self.keep_best >= 0, "keep_best must not be negative", self.keep_best)


@dataclass(frozen=True)
class ValidationSettings:
    """Retrieval on a held-out split during training, computed by all ranks together."""

    # dataset/split, e.g. clotho/validation; null: no validation; "*": the largest held-out split of the build
    split: str | None = None
    every: int = 0  # steps between validations; 0: at the end of every epoch
    metric: str = "text_to_audio/mAP@10"  # the metric by which the best checkpoint is chosen
    batch: int = 32  # clips that a rank encodes at once
    first: int = 0  # candidates of each query that a head with attention scores exactly; 0: all of them

    def __post_init__(self) -> None:
        require(self.every >= 0, "every must be 0 (each epoch) or a number of steps", self.every)
        require(self.first >= 0, "first must be 0 (all) or a number of candidates", self.first)
        require(self.batch >= 1, "batch must be positive", self.batch)


@dataclass(frozen=True)
class LogSettings:
    """Which figures are logged, and where they go besides ``metrics.jsonl``."""

    health: int = 10  # steps between measurements of uniformity and alignment; 0: never
    tensorboard: bool = True
    wandb: str | None = None  # a Weights & Biases project

    def __post_init__(self) -> None:
        require(self.health >= 0, "health must be 0 (never) or a number of steps", self.health)


@dataclass(frozen=True)
class InitSettings:
    """Weights from another run to start from, as a whole or by part."""

    model: str  # an export, a checkpoint, or the folder of a run
    parts: tuple[str, ...] = ()  # first words of parameter names, such as audio, text or head; none: all of them

    def __post_init__(self) -> None:
        require(bool(self.model), "init_from.model must name an export, a checkpoint or a run's folder", self.model)


@dataclass(frozen=True)
class DistillationSettings:
    """Training on the scores of teachers (Calvet and Toledano 2025, section 3.3; arXiv 2408.11641)."""

    teachers: tuple[str, ...]  # models, or folders that `teach` or `scores` wrote; their scores are averaged
    weight: float = 1.0  # of the distillation loss
    supervised: float = 1.0  # weight of the loss on the captions themselves; 0: distillation alone
    tau: float = 0.05  # the student's temperature
    teacher_tau: float = 0.05

    def __post_init__(self) -> None:
        require(bool(self.teachers), "distillation.teachers must name at least one teacher", None)
        require(self.weight > 0, "distillation.weight must be positive", self.weight)
        require(self.supervised >= 0, "distillation.supervised must not be negative", self.supervised)


@dataclass(frozen=True)
class AlignmentSettings:
    """A loss between the tokens of each caption and the tokens of its clip (`objectives/local/token_alignment.py`)."""

    weight: float = 0.0  # 0: there is none

    def __post_init__(self) -> None:
        require(self.weight >= 0, "alignment.weight must not be negative", self.weight)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run: every section of a recipe.

    Attributes:
        task: the ``Settings`` of the task, which says what is trained; without this section it is retrieval.
        audio, text, head, loss: the ``Settings`` of the component that the section chooses; None if the task has
            no such component.
        seed: the seed of everything that is drawn at random.
    """

    task: Any
    audio: Any = None
    text: Any = None
    head: Any = None
    loss: Any = None
    data: DataSettings
    optimizer: OptimizerSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    log: LogSettings = field(default_factory=LogSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    distillation: DistillationSettings | None = None
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    init_from: InitSettings | None = None
    seed: int = 0


# The sections that choose a component, and the key that names it.
COMPONENT_KEYS = {"task": "name", "audio": "encoder", "text": "encoder", "head": "name", "loss": "name"}
