"""A whole training run in one YAML file: typed, checked, and written back as resolved.

Every section is a frozen dataclass.  A section that chooses a component (``audio: {encoder: passt, ...}``)
takes its keys from the ``Settings`` of the module that the registry names, so a new encoder, head or loss
brings its own settings along and nothing here changes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sharding.common.errors import InputError
from training.config.strict import Place, build, nearest, read_yaml, require
from training.data.settings import DataSettings
from training.evaluation.retrieval import DIRECTIONS, MEASURED
from training.models.encoders import encoder_module
from training.models.encoders.lora import LoraSettings
from training.models.encoders.outside import contents, is_outside, located

RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class OptimizerSettings:
    """How the parameters move.

    Rates: ``lr`` is reached after ``warmup_epochs`` (linear), then falls as half a cosine to ``final_lr`` at
    the end.  ``rates`` and ``freeze`` name parameters by glob (``audio.*``, ``text.*.layer.[0-7].*``); the
    first matching rate counts.  ``layer_decay`` multiplies the rate once more for each block below the top
    of an encoder.
    """

    clip: float  # largest norm of the gradient of all parameters; 0: never clipped
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
    freeze: tuple[str, ...] = ()  # globs of parameter names that stay as they are
    freeze_below: dict[str, int] = field(default_factory=dict)  # audio or text: lowest block that is trained

    def __post_init__(self) -> None:
        require(self.clip >= 0, "clip must be 0 (never clip) or a positive norm", self.clip)
        require(self.lr > 0 and self.final_lr >= 0, "rates must be positive", (self.lr, self.final_lr))
        require(self.final_lr <= self.lr, "final_lr is above lr: the rate would rise to the end", self.final_lr)
        require(0 < self.epochs < 1e9, "epochs must be positive, and below a thousand million", self.epochs)
        require(self.steps is None or self.steps > 0, "steps must be positive", self.steps)
        require(self.warmup_epochs >= 0, "warmup_epochs must not be negative", self.warmup_epochs)
        require(
            set(self.freeze_below) <= {"audio", "text"},
            "freeze_below knows audio and text",
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
    """How a step is computed; it changes nothing but rounding, except that ``ema`` decides what is exported."""

    zero: Literal[0, 1, 2, 3] = 1  # DeepSpeed ZeRO stage: what is sharded over ranks
    dtype: Literal["fp32", "bf16"] = "fp32"
    chunk: int = 0  # samples a rank encodes at once in the cached step; 0: the plain step
    activation_checkpointing: bool = False
    ema: float = 0.0  # decay a step of the averaged weights, which are then exported; 0: none are kept
    nonfinite: Literal["stop", "skip"] = "stop"  # when the loss or the gradient is NaN or infinite
    compile: bool = False  # torch.compile on the encoders' blocks: helps on GPUs, costs minutes at the start

    def __post_init__(self) -> None:
        require(self.chunk >= 0, "chunk must be 0 (plain step) or a number of samples", self.chunk)
        require(0 <= self.ema < 1, "ema must be in [0, 1)", self.ema)


@dataclass(frozen=True)
class CheckpointSettings:
    """When a run is saved, and which checkpoints stay."""

    every: int = 0  # steps between checkpoints; 0: at the end of every epoch. A validation makes one too
    keep_last: int = 2
    keep_best: int = 1  # by the validation metric; 0: a validation makes no checkpoint

    def __post_init__(self) -> None:
        require(self.every >= 0, "every must be 0 (each epoch) or a number of steps", self.every)
        require(self.keep_last >= 1, "keep_last must be at least 1, or nothing could resume", self.keep_last)
        require(self.keep_best >= 0, "keep_best must not be negative", self.keep_best)


@dataclass(frozen=True)
class ValidationSettings:
    """Retrieval on a held-out split while training; on every rank."""

    split: str | None = None  # dataset/split, e.g. clotho/validation; null: no validation
    every: int = 0  # steps between validations; 0: at the end of every epoch
    metric: str = "text_to_audio/mAP@10"  # what "best" means
    batch: int = 32  # clips a rank encodes at once
    first: int = 0  # candidates of each query that a head with attention scores exactly; 0: all

    def __post_init__(self) -> None:
        require(self.every >= 0, "every must be 0 (each epoch) or a number of steps", self.every)
        require(self.first >= 0, "first must be 0 (all) or a number of candidates", self.first)
        require(self.batch >= 1, "batch must be positive", self.batch)


@dataclass(frozen=True)
class LogSettings:
    """Where figures go besides ``metrics.jsonl``."""

    health: int = 10  # steps between measurements of uniformity and alignment; 0: never
    tensorboard: bool = True
    wandb: str | None = None  # a Weights & Biases project

    def __post_init__(self) -> None:
        require(self.health >= 0, "health must be 0 (never) or a number of steps", self.health)


@dataclass(frozen=True)
class Recipe:
    """A training run.  The first four sections are the ``Settings`` of the component that they choose."""

    audio: Any
    text: Any
    head: Any
    loss: Any
    data: DataSettings
    optimizer: OptimizerSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    log: LogSettings = field(default_factory=LogSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    seed: int = 0


def registries() -> dict[str, tuple[str, Mapping[str, str]]]:
    """Choice sections: the key that names the component, and its registry."""
    from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS
    from training.models.heads import HEADS
    from training.objectives.pairs import LOSSES

    return {
        "audio": ("encoder", AUDIO_ENCODERS),
        "text": ("encoder", TEXT_ENCODERS),
        "head": ("name", HEADS),
        "loss": ("name", LOSSES),
    }


# Keys that people bring from other trainers, and why they do not exist here.
REFUSED = {
    "gradient_accumulation_steps": "accumulating small batches is not a bigger contrastive batch: each would "
    "see only its own negatives; set engine.chunk, which encodes in chunks and scores the whole batch",
    "gather_with_grad": "negatives always carry gradient across ranks; there is no other setting",
    "local_loss": "every pair is scored by exactly one rank, always; there is no other setting",
    "fp16": "float16 overflows in the attention of these encoders; set engine.dtype to bf16",
    "hostfile": "the launcher takes the hostfile: deepspeed --hostfile FILE --module training fit ...",
}
REFUSED |= dict.fromkeys(
    ("accum_freq", "grad_accum", "accumulate_grad_batches", "gas"), REFUSED["gradient_accumulation_steps"]
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key.path=value`` overrides (values are YAML).

    ``path`` is a file, or the name of a recipe that comes with Earshot (``demo``).  Raises ``InputError``
    that names the file, the row, the key and the nearest valid one.
    """
    file = Path(path)
    packaged = RECIPES / f"{path}.yaml"
    if not file.is_file() and packaged.is_file():
        file = packaged
    if not file.is_file():
        known = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
        remedy = nearest(str(path), known) + "name a YAML file or one of: " + ", ".join(known)
        raise InputError("no such recipe", file=path, remedy=remedy)
    tree, rows = read_yaml(file)
    origins: dict[tuple[str, ...], int | str] = {**rows}
    for override in overrides:
        key = apply_override(tree, override)
        origins = {other: row for other, row in origins.items() if other[: len(key)] != key}
        origins[key] = f"--set {override}"
    return parse(tree, file, origins)


def parse(tree: Any, file: object = None, rows: Mapping[tuple[str, ...], int | str] | None = None) -> Recipe:
    """A recipe from the plain tree of a YAML file."""
    place = Place(file, (), dict(rows or {}), REFUSED)
    mapping = place.mapping(tree)
    place.check_keys(mapping, [field.name for field in fields(Recipe)])
    choices = registries()
    values: dict[str, Any] = {}
    for section in fields(Recipe):
        here = place.at(section.name)
        if section.name in choices and section.name in mapping:
            values[section.name] = _choice(mapping[section.name], *choices[section.name], here)
        elif section.name in mapping:
            values[section.name] = build(_section_type(section.name), mapping[section.name], here)
        elif section.default is MISSING and section.default_factory is MISSING:
            raise place.error(f"the section {section.name!r} is missing", remedy="add it to the recipe")
    recipe = Recipe(**values)
    _refuse_dangerous(recipe, place)
    return recipe


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The plain tree that ``parse`` turns back into the same recipe, every default written out."""
    return {section.name: _plain(getattr(recipe, section.name)) for section in fields(Recipe)}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; ``load`` reads it back unchanged."""
    return yaml.safe_dump(to_tree(recipe), sort_keys=False, allow_unicode=True, width=110)


def digest(recipe: Recipe) -> str:
    """A short name of the resolved recipe: equal for equal settings, whatever the file's layout."""
    canonical = json.dumps(to_tree(recipe), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


_ENCODERS = ("audio.encoder", "text.encoder")
# What may change between a checkpoint and its continuation: how, not what, is computed.
_FREE_ON_RESUME = (
    *("engine", "checkpoint", "validation", "log"),
    *("data.workers", "data.readahead", "data.checksum", "data.max_failures"),
)
# what is exported, and figures that are compared
_FIXED_ON_RESUME = ("engine.ema", "validation.split", "validation.first")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Keys whose change would make a continued run another run, as ``key: old -> new``."""
    before, after = _compared(old), _compared(new)
    changed = [key for key in before | after if before.get(key, MISSING) != after.get(key, MISSING)]
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in changed
        if key in _FIXED_ON_RESUME or not any(key == free or key.startswith(free + ".") for free in _FREE_ON_RESUME)
    ]


def _compared(recipe: Recipe) -> dict[str, Any]:
    """Every key's value; of a user's own encoder what its file holds, for that may lie elsewhere by now."""
    values = dict(_leaves(to_tree(recipe)))
    return values | {key: contents(name) for key, name in values.items() if key in _ENCODERS and is_outside(name)}


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _choice(tree: Any, key: str, registry: Mapping[str, str], place: Place) -> Any:
    mapping = place.mapping(tree)
    if key not in mapping:
        raise place.error(f"{place.key} does not say which: the key {key!r} is missing", remedy=_names(registry))
    name = mapping[key]
    if key == "encoder" and is_outside(name):
        name = located(name, place.file)
        return build(encoder_module(registry, name).Settings, {**mapping, key: name}, place)
    if not isinstance(name, str) or name not in registry:
        advice = nearest(name, registry) if isinstance(name, str) else ""
        raise place.at(key).error(f"unknown {place.key} {key}", value=name, remedy=advice + _names(registry))
    return build(importlib.import_module(registry[name]).Settings, mapping, place)


def _names(registry: Iterable[str]) -> str:
    return "valid: " + ", ".join(sorted(registry))


def _section_type(name: str) -> Any:
    types: dict[str, Any] = {
        "data": DataSettings,
        "optimizer": OptimizerSettings,
        "engine": EngineSettings,
        "checkpoint": CheckpointSettings,
        "validation": ValidationSettings,
        "log": LogSettings,
        "lora": LoraSettings,
        "seed": int,
    }
    return types[name]


def apply_override(tree: Any, override: str) -> tuple[str, ...]:
    """Set one ``key.path=value`` in the plain tree of a recipe; returns the key's path."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InputError("an override must read key.path=value", value=override)
    if not isinstance(tree, dict):
        raise InputError("the recipe must be a mapping of keys to values", value=tree)
    node = tree
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise InputError(f"--set {override}: {part!r} has no keys below it", value=key)
    try:
        node[path[-1]] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise InputError("the value of an override is not YAML", value=override) from error
    return tuple(path)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def _refuse_dangerous(recipe: Recipe, place: Place) -> None:
    """Settings that would train, and train something else than the recipe seems to say."""
    metrics = [f"{direction}/{name}" for direction in DIRECTIONS for name in MEASURED]
    checks: list[tuple[bool, str, str, str]] = [
        (
            recipe.optimizer.name == "adam" and recipe.optimizer.weight_decay > 0,
            "optimizer.weight_decay",
            "Adam adds weight decay to the gradient, where its own scaling undoes it",
            "set optimizer.name to adamw, or weight_decay to 0",
        ),
        (
            recipe.optimizer.steps is None and recipe.optimizer.warmup_epochs >= recipe.optimizer.epochs,
            "optimizer.warmup_epochs",
            "the run would end before its warm-up does",
            "set warmup_epochs below epochs",
        ),
        (
            recipe.validation.metric not in metrics,
            "validation.metric",
            f"{recipe.validation.metric!r} is not measured, so no checkpoint would be the best",
            nearest(recipe.validation.metric, metrics) + "valid: " + ", ".join(metrics),
        ),
        (
            recipe.data.batch_size < 2,
            "data.batch_size",
            "a batch of one clip has no negatives, and its loss is constant",
            "set data.batch_size to 2 or more; engine.chunk bounds the memory of large batches",
        ),
    ]
    for wrong, key, reason, remedy in checks:
        if wrong:
            raise place.at(*key.split(".")).error(f"{key} is refused: {reason}", remedy=remedy)
