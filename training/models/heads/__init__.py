"""The heads that a recipe can name.

A module has `Settings` (a frozen dataclass whose first field is `name`) and
`build(settings, audio_dim, text_dim) -> Head`, where the dimensions are the encoders'.
"""

from __future__ import annotations

import importlib
from typing import Any

from training.models.heads.base import Head

HEADS: dict[str, str] = {
    "clap": "training.models.heads.clap",
    "co-attention": "training.models.heads.coattention",
    "dual": "training.models.heads.dual",
    "sentence-attention": "training.models.heads.sentence_attention",
    "text-aware-pooling": "training.models.heads.text_aware_pooling",
    "token-attention": "training.models.heads.token_attention",
}


def build_head(settings: Any, audio_dim: int, text_dim: int) -> Head:
    """The head that its settings name, for encoders of these widths."""
    head: Head = importlib.import_module(HEADS[settings.name]).build(settings, audio_dim, text_dim)
    return head
