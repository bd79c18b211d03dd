"""DeBERTa-v3 (He et al., 2021), deberta-v3-large in papers/001 table 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, bert_sizes, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """DeBERTa-v3; the defaults are deberta-v3-large."""

    encoder: str = "deberta-v3"
    source: str = "microsoft/deberta-v3-large"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 128100


def _sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    # disentangled attention with shared keys and log buckets is what makes it version 3
    return bert_sizes(settings, tokenizer) | {
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    }


FAMILY = Family(
    model="DebertaV2Model",
    config="DebertaV2Config",
    sizes=_sizes,
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    blocks="encoder.layer",
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes.

    Nothing is dropped of the table of relative positions: it belongs to all captions of a batch, so what is dropped of
    it would depend on how the batch is cut over ranks and chunks.
    """
    encoder = build_hub_text(settings, captions, FAMILY)
    for module in encoder.modules():
        if hasattr(module, "pos_dropout"):
            module.pos_dropout = nn.Identity()
    return encoder
