"""A published CLAP model (Wu et al. 2023) as a retriever: transformers' ``ClapModel`` taken apart.

Captions, and clips of up to 10 s, get the vectors that ``ClapModel`` gives them.  Of a longer clip, the published front
end hears one window that is drawn at random, or fuses three of them; here the clip is heard in segments of 10 s, whose
vectors are averaged before the projection.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.sections import OptimizerSettings, Recipe
from training.data.settings import DataSettings, MixtureItem
from training.models.encoders.audio import clap
from training.models.encoders.published import Architecture, load_model, load_tokenizer
from training.models.encoders.text.families import CLAP_TEXT, ClapText
from training.models.heads import build_head
from training.models.heads.clap import Settings as HeadSettings
from training.models.retrieval import RetrievalModel
from training.models.retriever import Retriever
from training.objectives.pairs import build_loss
from training.objectives.pairs.ntxent import Settings as LossSettings
from training.tasks.retrieval import Settings as Retrieval

ARCHITECTURE = Architecture("ClapModel", "ClapConfig")
LONGEST = 512  # tokens of a caption, where the model itself has no limit
PROJECTIONS = ("audio_projection", "text_projection")


def open_clap(folder: Path, name: str) -> Retriever:
    """The retriever of a ``ClapModel`` with its tokenizer.

    Args:
        folder: as ``save_pretrained`` writes it, with safetensors.
        name: what the recipe calls the model: the folder, or its name on the hub.

    Raises:
        InputError: the folder holds no such model, or not all of it.
    """
    net = load_model(ARCHITECTURE, str(folder), {})
    settings = clap.Settings(source=name)
    audio = clap.wrap(net.audio_model, settings)
    text_settings = ClapText(source=name)
    text = CLAP_TEXT.wrap(net.text_model, load_tokenizer(str(folder)), text_settings)
    head_settings = _head_settings(net, folder)
    head: Any = build_head(head_settings, audio.dim, text.dim)
    for side in PROJECTIONS:
        getattr(head, side).load_state_dict(getattr(net, side).state_dict())
    loss_settings = LossSettings(tau=math.exp(-float(net.logit_scale_a.detach())))
    recipe = Recipe(
        task=Retrieval("retrieval"),
        audio=settings,
        text=text_settings,
        head=head_settings,
        loss=loss_settings,
        data=published_data(text.max_tokens),
        optimizer=OptimizerSettings(clip=1.0),
    )
    return Retriever(RetrievalModel(audio, text, head).eval(), build_loss(loss_settings).eval(), recipe)


def published_data(max_tokens: int | None) -> DataSettings:
    """How a published model reads clips and captions: captions as they are written, clips from their start."""
    return DataSettings(
        train=(MixtureItem("published"),),
        crop="start",
        lower=False,
        strip_punctuation=False,
        max_tokens=max_tokens or LONGEST,
    )


def _head_settings(net: Any, folder: Path) -> HeadSettings:
    activations = {getattr(net, side).config.projection_hidden_act for side in PROJECTIONS}
    if len(activations) != 1 or not activations <= {"relu", "gelu"}:
        raise InputError(
            "the model's projections have activations that Earshot does not know",
            file=folder,
            value=", ".join(sorted(activations)),
            remedy="name a ClapModel with relu or gelu in both projections",
        )
    return HeadSettings(dim=net.projection_dim, activation=activations.pop())
