"""A plan on two cores: the same runs with small encoders and a few steps, on whatever splits a build has.

With small random encoders it proves that every step of the plan works, and its figures are those of models that have
hardly learned anything.  With two towers that have real weights, its figures are those of heads on them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from sharding.common.errors import InputError
from training.config.sections import CheckpointSettings, EngineSettings, LogSettings, Recipe, ValidationSettings
from training.data.settings import AugmentSettings, MaskingSettings
from training.models.encoders.audio import whisper
from training.models.encoders.text.families import Bert
from training.reproduce.plans import Plan

STEPS = 20
TOWER_STEPS = 200  # on frozen towers, whose vectors are computed once, a step is cheap
LONGEST_S = 5.0  # of a clip
WIDTH = 64
TOWER_WIDTH = 256


class Towers(NamedTuple):
    """Encoders with real weights for the small scale, each a folder or a name on the hub.

    Attributes:
        audio: an encoder of Whisper's kind.
        text: an encoder of BERT's kind.
    """

    audio: str
    text: str


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


def on_towers(recipe: Recipe, towers: Towers, stored: Path) -> Recipe:
    """A recipe of the small scale with its head on frozen towers, whose vectors all runs keep in ``stored``.

    What would make a clip sound different from epoch to epoch is left out: masks, changes of the wave, random crops.
    """
    data = replace(
        recipe.data,
        crop="start",
        masking=MaskingSettings(),
        augment=AugmentSettings(),
        stored=("audio", "text"),
        stored_folder=str(stored),
    )
    optimizer = replace(recipe.optimizer, freeze=("audio.*", "text.*"), freeze_below={}, rates={}, layer_decay=1.0)
    return replace(
        recipe,
        audio=whisper.Settings(source=towers.audio, segment_s=LONGEST_S / 2, max_s=LONGEST_S, pooled="layers"),
        text=Bert(source=towers.text, dropout=0.0),
        head=_with(recipe.head, dim=TOWER_WIDTH, heads=8),
        data=data,
        optimizer=optimizer,
    )


def check_towers(towers: Towers, plan: Plan, recipes: Collection[Recipe]) -> None:
    """``InputError`` if a tower is a folder that is not there, or where a plan would lose what it is about.

    Args:
        towers: see `on_towers`.
        plan: to be carried out.
        recipes: the recipes of all of its runs, at the full scale.
    """
    for name in towers:
        if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            remedy = "name a folder, or a model on the hub such as openai/whisper-tiny.en"
            raise InputError("no such tower", file=name, remedy=remedy)
    compared = {tuple((one.encoder, one.source) for one in (recipe.audio, recipe.text)) for recipe in recipes}
    if plan.rows or len(compared) > 1:
        what = "a table of tests" if plan.rows else "about encoders"
        remedy = "leave --towers out: small random encoders take the place of each"
        raise InputError(f"the plan is {what}, so it cannot be carried out on one pair of towers", remedy=remedy)


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
