"""The text encoders of the transformers library that a recipe can name: settings and a `Family` for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from training.models.encoders.text.transformer import Family, TextSettings


@dataclass(frozen=True)
class Bert(TextSettings):
    """BERT (Devlin et al. 2019); the defaults are all-MiniLM-L6-v2.

    Attributes:
        pooling: one vector for each caption: the mean of its tokens, or its first token.
    """

    encoder: str = "bert"
    source: str = "sentence-transformers/all-MiniLM-L6-v2"
    width: int = 384
    depth: int = 6
    pooling: Literal["mean", "first"] = "mean"


@dataclass(frozen=True)
class Bge(TextSettings):
    """BGE (Xiao et al. 2023), a BERT; the defaults are bge-base-en-v1.5."""

    encoder: str = "bge"
    source: str = "BAAI/bge-base-en-v1.5"


@dataclass(frozen=True)
class ClapText(TextSettings):
    """The text tower of CLAP (Wu et al. 2023), a RoBERTa with a pooling layer; the defaults are clap-htsat-unfused."""

    encoder: str = "clap-text"
    source: str = "laion/clap-htsat-unfused"
    vocabulary: int = 50265


@dataclass(frozen=True)
class Clip(TextSettings):
    """The text tower of CLIP (Radford et al. 2021) with its projection into the space that text shares with images.

    The defaults are those of ViT-B/32.
    """

    encoder: str = "clip"
    source: str = "openai/clip-vit-base-patch32"
    dropout: float = 0.0
    width: int = 512
    heads: int = 8
    vocabulary: int = 49408


@dataclass(frozen=True)
class ClipText(TextSettings):
    """The text tower of CLIP (Radford et al. 2021) without a projection; the defaults are those of ViT-B/32."""

    encoder: str = "clip-text"
    source: str = "openai/clip-vit-base-patch32"
    dropout: float = 0.0
    width: int = 512
    heads: int = 8
    vocabulary: int = 49408


@dataclass(frozen=True)
class DebertaV3(TextSettings):
    """DeBERTa-v3 (He et al. 2021); the defaults are deberta-v3-large."""

    encoder: str = "deberta-v3"
    source: str = "microsoft/deberta-v3-large"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 128100


@dataclass(frozen=True)
class GtrT5(TextSettings):
    """GTR-T5 (Ni et al. 2021), the encoder of a T5; the defaults are gtr-t5-large."""

    encoder: str = "gtr-t5"
    source: str = "sentence-transformers/gtr-t5-large"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 32128


@dataclass(frozen=True)
class ModernBert(TextSettings):
    """ModernBERT (Warner et al. 2024); the defaults are ModernBERT-base."""

    encoder: str = "modernbert"
    source: str = "answerdotai/ModernBERT-base"
    dropout: float = 0.0
    depth: int = 22
    vocabulary: int = 50368


@dataclass(frozen=True)
class MPNet(TextSettings):
    """MPNet (Song et al. 2020); the defaults are all-mpnet-base-v2."""

    encoder: str = "mpnet"
    source: str = "sentence-transformers/all-mpnet-base-v2"


@dataclass(frozen=True)
class Roberta(TextSettings):
    """RoBERTa (Liu et al. 2019); the defaults are roberta-large, with the dropout of DCASE 2025's baseline."""

    encoder: str = "roberta"
    source: str = "FacebookAI/roberta-large"
    dropout: float = 0.2
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 50265


def _bert_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    """Sizes under the names that BERT and its descendants give them."""
    return {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "max_position_embeddings": 512 + 2,  # 512 tokens where positions are counted from padding + 1
        "bos_token_id": tokenizer.bos_token_id,
    }


def _roberta_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    return _bert_sizes(settings, tokenizer) | {"type_vocab_size": 1}


def _deberta_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    """Version 3 has disentangled attention with shared keys and buckets of logarithmic width."""
    return _bert_sizes(settings, tokenizer) | {
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    }


def _clip_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    return _bert_sizes(settings, tokenizer) | {"max_position_embeddings": 77, "projection_dim": settings.width}


def _t5_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    return {
        "d_model": settings.width,
        "d_kv": settings.width // settings.heads,
        "d_ff": 4 * settings.width,
        "num_layers": settings.depth,
        "num_heads": settings.heads,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }


def _modernbert_sizes(settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
    return {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 3 * settings.width // 2,
        "bos_token_id": tokenizer.bos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }


def _drop_no_positions(net: nn.Module) -> None:
    """Take DeBERTa's dropout of the table of relative positions out.

    The table belongs to all captions of a batch, so what is dropped of it would depend on how the batch is split over
    ranks and chunks.
    """
    for module in net.modules():
        if hasattr(module, "pos_dropout"):
            module.pos_dropout = nn.Identity()


BERT = Family(Bert, "BertModel", "BertConfig", _bert_sizes, "encoder.layer", pooling="mean", pooling_layer=True)
BGE = Family(Bge, "BertModel", "BertConfig", _bert_sizes, "encoder.layer", pooling_layer=True)
CLAP_TEXT = Family(
    ClapText,
    "ClapTextModel",
    "ClapTextConfig",
    _roberta_sizes,
    "encoder.layer",
    top="pooler",
    positions_after_padding=True,
    own_pooling=True,
    # Published files hold both towers, and the names of the text tower begin with text_model.
    renames=((r"^text_model\.", ""),),
)
CLIP = Family(
    Clip,
    "CLIPTextModelWithProjection",
    "CLIPTextConfig",
    _clip_sizes,
    "text_model.encoder.layers",
    top="text_model.final_layer_norm",
    dropout=("attention_dropout",),
    pooling="last",
    embeddings="text_model.embeddings",
    projection="text_projection",
)
CLIP_TEXT = Family(
    ClipText,
    "CLIPTextModel",
    "CLIPTextConfig",
    _clip_sizes,
    "encoder.layers",
    top="final_layer_norm",
    dropout=("attention_dropout",),
    pooling="last",  # attention is causal, so only the end token has read the whole caption
)
DEBERTA_V3 = Family(
    DebertaV3, "DebertaV2Model", "DebertaV2Config", _deberta_sizes, "encoder.layer", prepare=_drop_no_positions
)
GTR_T5 = Family(
    GtrT5,
    "T5EncoderModel",
    "T5Config",
    _t5_sizes,
    "encoder.block",
    top="encoder.final_layer_norm",
    dropout=("dropout_rate",),
    pooling="mean",
    table="encoder.embed_tokens",
    embeddings="",
)
MODERNBERT = Family(
    ModernBert,
    "ModernBertModel",
    "ModernBertConfig",
    _modernbert_sizes,
    "layers",
    top="final_norm",
    dropout=("attention_dropout", "embedding_dropout", "mlp_dropout"),
)
MPNET = Family(
    MPNet,
    "MPNetModel",
    "MPNetConfig",
    _bert_sizes,
    "encoder.layer",
    pooling="mean",
    positions_after_padding=True,
    pooling_layer=True,
)
ROBERTA = Family(
    Roberta,
    "RobertaModel",
    "RobertaConfig",
    _roberta_sizes,
    "encoder.layer",
    positions_after_padding=True,
    pooling_layer=True,
)
