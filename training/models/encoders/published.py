"""Models of the transformers library from the Hugging Face hub or a local folder.

A model is loaded completely or refused: the library itself gives random values to parameters that a file lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from training.models.downloads import hub_answers, is_hub_name, only_here

PICKLE = "pytorch_model.bin"
# Classes that the library does not export, or that Earshot makes of parts of it, and where they are.
UNEXPORTED = {
    "WhisperEncoder": "transformers.models.whisper.modeling_whisper",
    "Qwen2AudioSound": "training.models.multimodal.qwen2_audio",
    "Qwen2_5OmniAudioEncoder": "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni",
    "Qwen3OmniMoeAudioEncoder": "transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe",
}


@dataclass(frozen=True)
class Architecture:
    """One architecture of the library.

    Attributes:
        model: the name of its class in ``transformers``.
        config: the name of its configuration class.
        renames: regular expressions of parameter names in published files, and the names in the class.
        arguments: further arguments of the model's constructor.
    """

    model: str
    config: str
    renames: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()


def load_model(architecture: Architecture, source: str, changes: Mapping[str, Any]) -> Any:
    """Load a model.

    Args:
        architecture: its classes.
        source: a name on the hub, or a local folder.  Weights are read from safetensors.  A pickle is read only if
            ``source`` names it: ``FOLDER/pytorch_model.bin``.
        changes: settings of its configuration that replace the published ones.

    Raises:
        InputError: there is no such model, it has another architecture, or a parameter is missing.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # it would print a line for each encoder of each rank
    config_class = getattr(transformers, architecture.config)
    folder = folder_of(source)
    try:
        found, _ = config_class.get_config_dict(folder, local_files_only=only_here(folder))
        refuse_code(found, folder)
        kind = found.get("model_type", config_class.model_type)
        if kind != config_class.model_type and config_class.base_config_key not in found:
            raise InputError(
                f"the model is a {kind}, the encoder takes a {config_class.model_type}",
                file=source,
                remedy="name the encoder of that model, or another source",
            )
        config = config_class.from_pretrained(folder, local_files_only=only_here(folder))
        for name, value in changes.items():
            setattr(config, name, value)
    except InputError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds
        raise unavailable("model", source, error) from error
    return load_weights(architecture, source, config)


def load_weights(architecture: Architecture, source: str, config: Any) -> Any:
    """A model of this configuration with the weights at ``source``, of which it may be a part; see `load_model`."""
    folder = folder_of(source)
    try:
        model, report = _class(architecture.model).from_pretrained(
            folder,
            local_files_only=only_here(folder),
            use_safetensors=folder == source,
            trust_remote_code=False,
            config=config,
            dtype=torch.float32,  # small steps of an optimizer are lost in half precision, in which some are published
            key_mapping=dict(architecture.renames) or None,
            output_loading_info=True,
            **dict(architecture.arguments),
        )
    except Exception as error:  # the libraries raise errors of many kinds
        raise unavailable("model", source, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} parameters of {architecture.model}, such as {missing[0]}",
            file=source,
            remedy="name a complete model of this architecture",
        )
    return model


def folder_of(source: str) -> str:
    """The folder of a source that names a pickle in it; any other source as it is."""
    return str(Path(source).parent) if Path(source).name == PICKLE else source


def refuse_code(configuration: Mapping[str, Any], folder: str) -> None:
    """``InputError`` if a model would make the library load further files, which may be code or pickles."""
    attention = [str(value) for key, value in _settings(configuration) if key.endswith("attn_implementation")]
    if any("/" in name for name in attention):
        raise InputError("the model names code on the hub as its attention", file=folder, value=", ".join(attention))
    if (Path(folder) / "adapter_config.json").exists():
        remedy = "merge it into its model, and save that"
        raise InputError("the folder holds an adapter and not a model", file=folder, remedy=remedy)


def _settings(configuration: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value of a configuration, and of the configurations of towers inside it."""
    for key, value in configuration.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _settings(value)


def random_model(architecture: Architecture, configuration: Mapping[str, Any]) -> Any:
    """A model with random weights and this configuration; ``InputError`` if its sizes are inconsistent."""
    import transformers

    try:
        config = getattr(transformers, architecture.config)(**configuration)
        return _class(architecture.model)(config, **dict(architecture.arguments))
    except ValueError as error:
        raise InputError(
            f"{architecture.model} cannot have these sizes: {error}", remedy="make width a multiple of heads"
        ) from error


def load_tokenizer(source: str) -> Any:
    """The tokenizer at ``source``, a name on the hub or a local folder; ``InputError`` if there is none."""
    import transformers

    try:
        folder = folder_of(source)
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=only_here(folder), trust_remote_code=False
        )
    except Exception as error:  # the libraries raise errors of many kinds
        raise unavailable("tokenizer", source, error) from error


def unavailable(what: str, source: str, error: Exception) -> InputError:
    """The error of a model or tokenizer that cannot be loaded: one line of reason, and a remedy."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(source).is_dir():
        of_model = f"config.json and model.safetensors (or name {PICKLE} itself)"
        needed = of_model if what == "model" else "tokenizer.json and tokenizer_config.json"
        remedy = f"the folder must hold {needed}, as save_pretrained writes them"
    elif is_hub_name(source) and not hub_answers():
        reason = (
            "there is no such folder here, the Hugging Face hub does not answer, and this machine has no complete copy "
            "from an earlier download"
        )
        remedy = (
            "name a local folder in its place (of a recipe: --set audio.source=FOLDER or --set text.source=FOLDER), "
            "or start once with a network, which downloads it"
        )
    else:
        remedy = "name a model on the hub, which the first start downloads, a local folder, or random"
    return InputError(f"no {what} can be loaded: {reason}", file=source, remedy=remedy)


def _class(name: str) -> Any:
    """The class of a model, also of one that the library does not export."""
    import transformers

    if name in UNEXPORTED:
        return getattr(importlib.import_module(UNEXPORTED[name]), name)
    return getattr(transformers, name)
