"""The encoders that a recipe describes, checked against its data section."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.sections import Recipe
from training.data.sound.features import find_front_end
from training.data.sound.masking import Masking
from training.models.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, AudioEncoder, TextEncoder, encoder_module
from training.models.encoders.lora import adapt

TOKENIZER = "tokenizer"  # folder of a run or an export


def build_audio(recipe: Recipe) -> AudioEncoder:
    """The audio encoder, with its adapters; ``InputError`` if the data section does not fit it."""
    audio = _audio(recipe)
    adapt(audio, recipe.lora.audio)
    return audio


def build_text(recipe: Recipe, texts: Iterable[str]) -> TextEncoder:
    """The text encoder, with its adapters; a tokenizer is trained on ``texts`` where the recipe names none.

    Raises ``InputError`` if the data section does not fit it.
    """
    text = _text(recipe, texts)
    adapt(text, recipe.lora.text)
    return text


def build_towers(recipe: Recipe, texts: Iterable[str]) -> tuple[AudioEncoder, TextEncoder]:
    """Both encoders, which may be one model; arguments and errors as of `build_audio` and `build_text`."""
    audio, text = _audio(recipe), _text(recipe, texts)
    audio.connect(text)
    adapt(audio, recipe.lora.audio)
    adapt(text, recipe.lora.text)
    return audio, text


def _audio(recipe: Recipe) -> AudioEncoder:
    audio: AudioEncoder = encoder_module(AUDIO_ENCODERS, recipe.audio.encoder).build(recipe.audio)
    if not 0 < audio.hop_s <= audio.segment_s:
        remedy = (
            f"at most audio.segment_s, which is {audio.segment_s:g}, or sound between segments is never heard; null: "
            "segments that do not overlap"
        )
        raise InputError("audio.hop_s must be above 0 and at most audio.segment_s", value=audio.hop_s, remedy=remedy)
    masking = Masking(recipe.data.masking)
    if masking.active and not find_front_end(audio.front_end).maskable:
        raise InputError(
            "data.masking masks spectrograms, and the audio encoder reads the wave itself",
            value=recipe.audio.encoder,
            remedy="set data.masking.time_masks and data.masking.freq_masks to 0",
        )
    return audio


def _text(recipe: Recipe, texts: Iterable[str]) -> TextEncoder:
    text: TextEncoder = encoder_module(TEXT_ENCODERS, recipe.text.encoder).build(recipe.text, texts)
    if text.max_tokens is not None and recipe.data.max_tokens > text.max_tokens:
        remedy = f"the text encoder reads at most {text.max_tokens}"
        raise InputError(
            "data.max_tokens is more than the text encoder reads", value=recipe.data.max_tokens, remedy=remedy
        )
    return text


def with_tokenizer(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the tokenizer that an earlier start trained, where there is one in ``folder``."""
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_dir():
        return recipe
    changed = {
        section: replace(getattr(recipe, section), tokenizer=str(tokenizer))
        for section in ("text", "task")
        if _trains_tokenizer(getattr(recipe, section))
    }
    return replace(recipe, **changed)


def _trains_tokenizer(settings: Any) -> bool:
    return getattr(settings, "source", "random") == "random" and getattr(settings, "tokenizer", "none") is None
