"""Models of the transformers library: loaded whole from the hub or from a folder, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """One architecture of the library.

    Attributes:
        model: its class, by name in ``transformers``.
        config: its configuration class.
        renames: regular expressions of names in published files, and what the class calls the same.
        arguments: further arguments of the model's constructor.
    """

    model: str
    config: str
    renames: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()


def load_model(architecture: Architecture, source: str, settings: Mapping[str, Any]) -> Any:
    """The model at ``source``, a hub name or a local folder, with some settings of its configuration changed.

    The library itself fills in random numbers where a file lacks a parameter; here that is an ``InputError``, and
    so is another architecture than the encoder's.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # of reading a file: a line for each encoder of each rank
    config_class = getattr(transformers, architecture.config)
    try:
        found, _ = config_class.get_config_dict(source)
        kind = found.get("model_type", config_class.model_type)
        if kind != config_class.model_type and config_class.base_config_key not in found:
            raise InputError(
                f"the model is a {kind}, the encoder wants a {config_class.model_type}",
                file=source,
                remedy="name the encoder that fits the model, or another source",
            )
        config = config_class.from_pretrained(source)
        for name, value in settings.items():
            setattr(config, name, value)
        model, report = _class(architecture.model).from_pretrained(
            source,
            config=config,
            dtype=torch.float32,  # some are published in half precision, which no optimizer could move
            key_mapping=dict(architecture.renames) or None,
            output_loading_info=True,
            **dict(architecture.arguments),
        )
    except InputError:
        raise
    except Exception as error:  # the libraries below raise whatever they like
        raise unavailable("model", source, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} parameters of {architecture.model}, the first {missing[0]}",
            file=source,
            remedy="name a complete model of this architecture",
        )
    return model


def random_model(architecture: Architecture, settings: Mapping[str, Any]) -> Any:
    """A model with random weights and this configuration; ``InputError`` where its sizes do not fit together."""
    import transformers

    try:
        config = getattr(transformers, architecture.config)(**settings)
        return _class(architecture.model)(config, **dict(architecture.arguments))
    except ValueError as error:
        raise InputError(
            f"{architecture.model} has no such sizes: {error}", remedy="width a multiple of heads"
        ) from error


def load_tokenizer(source: str) -> Any:
    """The tokenizer at ``source``; ``InputError`` where there is none."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the libraries below raise whatever they like
        raise unavailable("tokenizer", source, error) from error


def unavailable(what: str, source: str, error: Exception) -> InputError:
    """Why nothing could be loaded, in one line, and what to do about it."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(source).is_dir():
        needed = "config.json and model.safetensors" if what == "model" else "tokenizer.json and tokenizer_config.json"
        remedy = f"the folder must hold {needed}, as save_pretrained writes them"
    else:
        remedy = "name a model of the hub (the first start downloads it), a local folder, or random"
    return InputError(f"no {what} can be loaded: {reason}", file=source, remedy=remedy)


def _class(name: str) -> Any:
    """A model's class; encoders that the library keeps to itself are found in their module."""
    import transformers

    if name == "WhisperEncoder":
        from transformers.models.whisper import modeling_whisper

        return modeling_whisper.WhisperEncoder
    return getattr(transformers, name)
