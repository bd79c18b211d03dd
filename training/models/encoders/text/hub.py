"""What the text encoders of the transformers library have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive
from training.models.encoders import TextEncoder
from training.models.encoders.pooling import Pooling
from training.models.encoders.published import Architecture, load_model, load_tokenizer, random_model
from training.models.encoders.text.tokenizer import train_tokenizer


@dataclass(frozen=True)
class HubTextSettings:
    """A text encoder of the transformers library.

    Attributes:
        source: a hub name, a local folder, or ``random`` for a model of the sizes given here.
        tokenizer: a hub name or local folder; None: the source's own, and for ``random`` one that is
            trained on the training captions.
        dropout: of hidden states and of attention.
        width, depth, heads, vocabulary: sizes of ``random``.
    """

    encoder: str
    source: str
    tokenizer: str | None = None
    dropout: float = 0.1
    width: int = 768
    depth: int = 12
    heads: int = 12
    vocabulary: int = 30522

    def __post_init__(self) -> None:
        check_positive(self, "depth", "vocabulary")
        check_multiple(self, "width")
        check_dropout(self, "dropout")


@dataclass(frozen=True)
class Family:
    """How one architecture of the library is used.

    Attributes:
        model: name of its class in ``transformers``.
        config: name of its configuration class.
        sizes: from (settings, tokenizer) to the configuration of a random model.
        dropout: names of the configuration's dropout rates.
        blocks: path from the model to its list of blocks.
        top: path to the norm above the blocks, or "".
        shifted: whether positions count from behind the padding token's number.
        pooling: how published models of the family make one vector of a caption.
        arguments: further arguments of the model's constructor.
    """

    model: str
    config: str
    sizes: Callable[[HubTextSettings, Any], dict[str, Any]]
    dropout: tuple[str, ...]
    blocks: str
    top: str = ""
    shifted: bool = False
    pooling: Pooling = "first"
    arguments: tuple[tuple[str, Any], ...] = ()


class HubTextEncoder(TextEncoder):
    """One vector a token from any transformers model that returns ``last_hidden_state``."""

    def __init__(self, net: Any, family: Family, tokenizer: Any) -> None:
        super().__init__()
        self.net = net
        self.family = family
        self.tokenizer = tokenizer
        self.pooling = family.pooling
        self.max_tokens = getattr(net.config, "max_position_embeddings", None)
        if family.shifted and self.max_tokens is not None:
            self.max_tokens -= net.config.pad_token_id + 1
        self.dim = net.config.hidden_size

    def blocks(self) -> list[nn.Module]:
        return list(_follow(self.net, self.family.blocks))

    def top(self) -> list[nn.Module]:
        return [_follow(self.net, self.family.top)] if self.family.top else []

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        return self.net(input_ids=tokens, attention_mask=token_mask.long()).last_hidden_state


def _follow(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def build_hub_text(settings: HubTextSettings, captions: Iterable[str], family: Family) -> HubTextEncoder:
    """The encoder that ``settings`` describes, published or random."""
    architecture = Architecture(family.model, family.config, arguments=family.arguments)
    dropout = dict.fromkeys(family.dropout, settings.dropout)
    if settings.source != "random":
        net = load_model(architecture, settings.source, dropout)
        tokenizer = load_tokenizer(settings.tokenizer or settings.source)
        _check_vocabulary(net, tokenizer, settings)
        return HubTextEncoder(net, family, tokenizer)
    if settings.tokenizer is None:
        tokenizer = train_tokenizer(captions, settings.vocabulary)
    else:
        tokenizer = load_tokenizer(settings.tokenizer)
    sizes = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **family.sizes(settings, tokenizer),
    }
    return HubTextEncoder(random_model(architecture, sizes | dropout), family, tokenizer)


def _check_vocabulary(net: Any, tokenizer: Any, settings: HubTextSettings) -> None:
    rows = net.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer knows {len(tokenizer)} tokens, the model {rows}",
            file=settings.tokenizer or settings.source,
            remedy="name the model's own tokenizer",
        )


def bert_sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    """Sizes under the names that BERT and its descendants give them."""
    return {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        # RoBERTa and MPNet count positions from padding_idx + 1
        "max_position_embeddings": 512 + 2,
        "bos_token_id": tokenizer.bos_token_id,
    }
