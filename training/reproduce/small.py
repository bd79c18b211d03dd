"""A plan on two cores: the same runs with small random encoders and a few steps, on whatever splits a build has.

It proves that every step of the plan works.  Its figures are those of models that have hardly learned anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from sharding.common.errors import InputError
from training.config.sections import CheckpointSettings, EngineSettings, LogSettings, Recipe, ValidationSettings

STEPS = 20
LONGEST_S = 5.0  # of a clip
WIDTH = 64


def shrink(recipe: Recipe, there: Collection[str], steps: int) -> Recipe:
    """The recipe with small random encoders of the same kinds, and without the splits that the build lacks."""
    train = tuple(item for item in recipe.data.train if item.split in there)
    if not train:
        asked = ", ".join(item.split for item in recipe.data.train)
        raise InputError("the build has none of the splits that the plan trains on", value=asked)
    longest = min(recipe.data.max_tokens, 32)
    data = replace(
        recipe.data, train=train, batch_size=16, last="keep", crop_s=LONGEST_S, workers=0, max_tokens=longest
    )
    freeze_below = {part: min(block, 1) for part, block in recipe.optimizer.freeze_below.items()}
    optimizer = replace(
        recipe.optimizer, steps=steps, lr=2e-3, final_lr=1e-5, warmup_epochs=0.0, freeze_below=freeze_below
    )
    return replace(
        recipe,
        audio=_small_audio(recipe.audio),
        text=_with(recipe.text, source="random", width=WIDTH, depth=1, heads=2, vocabulary=1000),
        head=_with(recipe.head, dim=WIDTH, heads=2),
        task=_small_task(recipe.task),
        data=data,
        optimizer=optimizer,
        engine=EngineSettings(),
        checkpoint=CheckpointSettings(keep_last=1, keep_best=0),
        validation=ValidationSettings(),
        log=LogSettings(tensorboard=False),
    )


def _small_audio(settings: Any) -> Any:
    common = {"source": "random", "width": WIDTH, "depth": 2, "heads": 2, "max_s": LONGEST_S}
    if settings.encoder == "passt":
        hop = None if settings.hop_s is None else 0.5
        more = {"variant": "custom", "segment_s": 1.0, "hop_s": hop, "patchout_time": 0, "patchout_freq": 0}
        return _with(settings, **common, **more, pooled="patches", stride=16)
    return _with(settings, **common | ({} if settings.encoder == "clap" else {"segment_s": 2.0}))


def _small_task(settings: Any) -> Any:
    """CoLLAT's blocks, a captioner or a probe in a small size; the text encoder has one block."""
    found = _with(settings, width=WIDTH, heads=2, vocabulary=1000)
    if hasattr(found, "interaction"):
        found = replace(found, interaction=_with(found.interaction, width=WIDTH, heads=2), layer=min(found.layer, 1))
    return found


def _with(settings: Any, **values: Any) -> Any:
    """The settings, if there are any, with those of the values for which they have a field."""
    if settings is None:
        return None
    known = {each.name for each in fields(settings)}
    return replace(settings, **{name: value for name, value in values.items() if name in known})
