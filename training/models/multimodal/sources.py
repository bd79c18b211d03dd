"""Where the language model and the audio tower stand inside published multimodal models.

A part is read by itself from the files of the whole: what belongs to other parts is never loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sharding.common.errors import InputError
from training.models.downloads import only_here
from training.models.encoders.published import Architecture, folder_of, load_weights, refuse_code, unavailable

LLAMA = Architecture("LlamaForCausalLM", "LlamaConfig")
_OMNI = (r"^thinker\.", "")  # the whole of an omni model keeps the part that reads under this name


@dataclass(frozen=True)
class Part:
    """A part of a published model.

    Attributes:
        architecture: its classes, and how its parameters are called in the files of the whole.
        path: the keys that lead from the configuration of the whole to that of the part.
        changes: settings of its configuration that replace the published ones.
    """

    architecture: Architecture
    path: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)


def _qwen2(path: tuple[str, ...], *renames: tuple[str, str]) -> Part:
    return Part(Architecture("Qwen2ForCausalLM", "Qwen2Config", renames), path)


def _qwen3(path: tuple[str, ...], *renames: tuple[str, str]) -> Part:
    return Part(Architecture("Qwen3MoeForCausalLM", "Qwen3MoeConfig", renames), path)


LANGUAGE_MODELS: Mapping[str, Part] = {
    "llama": Part(LLAMA),
    "qwen2": _qwen2(()),
    "qwen3": Part(Architecture("Qwen3ForCausalLM", "Qwen3Config")),
    "qwen3_moe": _qwen3(()),
    "qwen2_5_omni_thinker": _qwen2(("text_config",)),
    "qwen2_5_omni": _qwen2(("thinker_config", "text_config"), _OMNI),
    "qwen2_audio": _qwen2(("text_config",), (r"^language_model\.", "")),
    "qwen3_omni_moe_thinker": _qwen3(("text_config",)),
    "qwen3_omni_moe": _qwen3(("thinker_config", "text_config"), _OMNI),
}


def load_language_model(source: str) -> Any:
    """The causal language model of a published model.

    Raises:
        InputError: there is no model, it is of another kind, or it is incomplete.
    """
    return load_part(LANGUAGE_MODELS, source, "language model")


def load_part(parts: Mapping[str, Part], source: str, what: str) -> Any:
    """A part of the model at ``source``, a name on the hub or a local folder.

    Args:
        parts: by the ``model_type`` of a published model.
        source: a name on the Hugging Face hub, or a local folder.
        what: the part, for errors.
    """
    import transformers

    folder = folder_of(source)
    try:
        whole, _ = transformers.PreTrainedConfig.get_config_dict(folder, local_files_only=only_here(folder))
    except Exception as error:  # the libraries raise errors of many kinds
        raise unavailable("model", source, error) from error
    refuse_code(whole, folder)
    kind = whole.get("model_type")
    if kind not in parts:
        remedy = "one of " + ", ".join(sorted(parts))
        raise InputError(f"no {what} is known of a model of this kind", file=source, value=kind, remedy=remedy)
    part = parts[kind]
    config = _config(whole, part, source)
    return load_weights(part.architecture, source, config)


def _config(whole: Mapping[str, Any], part: Part, source: str) -> Any:
    import transformers

    found: Any = whole
    for key in part.path:
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError("config.json lacks a part", file=source, value=".".join(part.path))
    values = {key: value for key, value in found.items() if key not in ("model_type", "architectures", "rope_scaling")}
    if isinstance(found.get("rope_parameters"), Mapping):  # of the three axes one is left
        values["rope_parameters"] = {k: v for k, v in found["rope_parameters"].items() if k != "mrope_section"}
    try:
        return getattr(transformers, part.architecture.config)(**values | part.changes)
    except Exception as error:  # the library raises errors of many kinds
        raise unavailable("model", source, error) from error
