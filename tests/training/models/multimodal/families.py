"""Small random multimodal models, saved by transformers' own classes as published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.models.encoders.text.tokenizer import train_tokenizer

CAPTIONS = ["a dog barks", "rain falls on a roof", "summarize above audio in one word"]
MARKS = ["<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>"]
SOUND, SOUND_START, SOUND_END, VISION_START = 299, 298, 297, 296  # tokens that no text has
TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
    "max_position_embeddings": 1024,
}
AXES = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e6}}
TOWER = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 128}
VISION: dict[str, Any] = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 24}


def qwen2_5_omni() -> Any:
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    tower = TOWER | {"output_dim": 24, "n_window": 50}
    config = Qwen2_5OmniThinkerConfig(audio_config=tower, vision_config=VISION, text_config=TEXT | AXES)
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


def qwen2_audio() -> Any:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    text, tower = TEXT | {"model_type": "qwen2"}, TOWER | {"model_type": "qwen2_audio_encoder"}
    return Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_config=tower, text_config=text))


def qwen3_omni() -> Any:
    from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration

    tower = TOWER | {"output_dim": 24, "downsample_hidden_size": 8, "n_window": 50, "n_window_infer": 100}
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 12}
    vision = VISION | {"deepstack_visual_indexes": [0]}
    text = TEXT | AXES | experts
    config = Qwen3OmniMoeThinkerConfig(audio_config=tower, vision_config=vision, text_config=text)
    return Qwen3OmniMoeThinkerForConditionalGeneration(config)


FAMILIES = {"qwen2.5-omni": qwen2_5_omni, "qwen2-audio": qwen2_audio, "qwen3-omni": qwen3_omni}


def write(family: str, folder: Path) -> Any:
    """Save a model of a family with its tokenizer, and return it as the library would load it."""
    torch.manual_seed(0)
    net = FAMILIES[family]().eval()
    net.save_pretrained(folder)
    tokenizer = train_tokenizer(CAPTIONS, 280)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    tokenizer.save_pretrained(folder)
    numbers = {
        "audio_token_id": SOUND,
        "audio_start_token_id": SOUND_START,
        "audio_end_token_id": SOUND_END,
        "vision_start_token_id": VISION_START,
    }
    for config in (net.config, net.model.config):
        for name, number in numbers.items():
            setattr(config, name, number)
    return net
