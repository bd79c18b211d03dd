"""RoBERTa (Liu et al., 2019): the text encoder of papers/000 and papers/001."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, bert_sizes, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """RoBERTa; the defaults are roberta-large with the dropout of the challenge's baseline."""

    encoder: str = "roberta"
    source: str = "FacebookAI/roberta-large"
    dropout: float = 0.2
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 50265


def _sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    return bert_sizes(settings, tokenizer) | {"type_vocab_size": 1}


FAMILY = Family(
    model="RobertaModel",
    config="RobertaConfig",
    sizes=_sizes,
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    blocks="encoder.layer",
    shifted=True,
    arguments=(("add_pooling_layer", False),),
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
