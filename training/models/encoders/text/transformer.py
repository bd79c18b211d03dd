"""Text encoders from models of the transformers library; `families.py` lists the architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_multiple, check_positive, refuse_sizes
from training.models.encoders import EncodedText, Place, TextEncoder
from training.models.encoders.pooling import Pooling
from training.models.encoders.published import Architecture, load_model, load_tokenizer, random_model
from training.models.encoders.text.tokenizer import train_tokenizer


@dataclass(frozen=True)
class TextSettings:
    """Settings of a text encoder of the transformers library.

    Attributes:
        encoder: the name of the family.
        source: a name on the Hugging Face hub, a local folder, or ``random`` for a model of the sizes given here.
        tokenizer: a name on the hub or a local folder; None: the source's own, or for ``random`` one that is trained
            on the training captions.
        dropout: the dropout of hidden states and of attention.
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

    sizes: ClassVar[tuple[str, ...]] = ("width", "depth", "heads", "vocabulary")

    def __post_init__(self) -> None:
        refuse_sizes(self, "the source", "leave the key out, or set source to random")
        check_positive(self, "depth", "vocabulary")
        check_multiple(self, "width")
        check_dropout(self, "dropout")

    def decided_by_source(self) -> tuple[str, ...]:
        """The keys that hold for ``random`` alone, where the source is another one."""
        return () if self.source == "random" else self.sizes


Sizes = Callable[[TextSettings, Any], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One architecture of the library, and how it becomes a text encoder.

    Attributes:
        Settings: the keys of a recipe, with the family's defaults.
        model: the name of its class in ``transformers``.
        config: the name of its configuration class.
        sizes: from the settings and the tokenizer to the configuration of a random model.
        blocks: the path from the model to its list of blocks.
        top: the path to the norm above the blocks; "": there is none.
        dropout: the names of the configuration's dropout rates.
        pooling: how published models of the family make one vector of a caption; a key ``pooling`` of the recipe
            replaces it where the family has one.
        positions_after_padding: whether positions are counted from the padding token's number + 1, as in RoBERTa.
        pooling_layer: whether the class has a pooling layer of its own, which is left out.
        own_pooling: whether a caption's vector is what the class's own pooling layer makes of it, not ``pooling``.
        renames: regular expressions of parameter names in published files, and the names in the class.
        table: the path to the table of token embeddings; "": the library finds it.
        embeddings: the path to the module between that table and the blocks, which may add positions; "": none.
        projection: the path to the layer through which the vector of a caption goes; "": there is none.
        prepare: called with the model once it is made; None: nothing is changed.
    """

    Settings: type[TextSettings]
    model: str
    config: str
    sizes: Sizes
    blocks: str
    top: str = ""
    dropout: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    pooling: Pooling = "first"
    positions_after_padding: bool = False
    pooling_layer: bool = False
    own_pooling: bool = False
    renames: tuple[tuple[str, str], ...] = ()
    table: str = ""
    embeddings: str = "embeddings"
    projection: str = ""
    prepare: Callable[[nn.Module], None] | None = None

    def build(self, settings: TextSettings, captions: Iterable[str]) -> TransformerTextEncoder:
        """The encoder that ``settings`` describes, published or random."""
        arguments = (("add_pooling_layer", False),) if self.pooling_layer else ()
        architecture = Architecture(self.model, self.config, self.renames, arguments)
        dropout = dict.fromkeys(self.dropout, settings.dropout)
        if settings.source == "random":
            tokenizer = _tokenizer_of_random(settings, captions)
            net = random_model(architecture, self._random_sizes(settings, tokenizer) | dropout)
        else:
            net = load_model(architecture, settings.source, dropout)
            tokenizer = load_tokenizer(settings.tokenizer or settings.source)
        return self.wrap(net, tokenizer, settings)

    def wrap(self, net: Any, tokenizer: Any, settings: TextSettings) -> TransformerTextEncoder:
        """The encoder of a model of the family; ``InputError`` if the tokenizer is not the model's."""
        check_vocabulary(net, tokenizer, settings.tokenizer or settings.source)
        if self.prepare is not None:
            self.prepare(net)
        return TransformerTextEncoder(net, self, tokenizer, getattr(settings, "pooling", self.pooling))

    def _random_sizes(self, settings: TextSettings, tokenizer: Any) -> dict[str, Any]:
        return {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **self.sizes(settings, tokenizer),
        }


class TransformerTextEncoder(TextEncoder):
    """One vector for each token, from any transformers model that returns ``last_hidden_state``."""

    def __init__(self, net: Any, family: Family, tokenizer: Any, pooling: Pooling) -> None:
        super().__init__()
        self.net = net
        self.family = family
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_tokens = getattr(net.config, "max_position_embeddings", None)
        if family.positions_after_padding and self.max_tokens is not None:
            self.max_tokens -= net.config.pad_token_id + 1
        self.dim = net.config.hidden_size

    def blocks(self) -> list[nn.Module]:
        blocks: Any = self.net.get_submodule(self.family.blocks)
        return list(blocks)

    def top(self) -> list[nn.Module]:
        return [self.net.get_submodule(path) for path in (self.family.top, self.family.projection) if path]

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        vectors: Tensor = self._outputs(tokens, token_mask).last_hidden_state
        return vectors

    def encode(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        if self.family.own_pooling:
            outputs = self._outputs(tokens, token_mask)
            return EncodedText(outputs.last_hidden_state, token_mask, outputs.pooler_output)
        found = super().encode(tokens, token_mask)
        if not self.family.projection:
            return found
        return replace(found, pooled=self.net.get_submodule(self.family.projection)(found.pooled))

    def _outputs(self, tokens: Tensor, token_mask: Tensor) -> Any:
        return self.net(input_ids=tokens, attention_mask=token_mask.long())

    def embedding(self, place: Place) -> nn.Module:
        if place == "before":
            table, found = self.family.table, self.net.get_input_embeddings()
            return self.net.get_submodule(table) if table else found
        if not self.family.embeddings:
            raise InputError(
                "the text encoder adds no positions to its embeddings",
                value=self.family.model,
                remedy="let embeddings enter before positions",
            )
        module: nn.Module = self.net.get_submodule(self.family.embeddings)
        return module


def _tokenizer_of_random(settings: TextSettings, captions: Iterable[str]) -> Any:
    if settings.tokenizer is None:
        return train_tokenizer(captions, settings.vocabulary)
    return load_tokenizer(settings.tokenizer)


def check_vocabulary(net: Any, tokenizer: Any, source: str) -> None:
    """``InputError`` if the tokenizer has tokens that the model has no embedding for; ``source`` names it."""
    rows, tokens = net.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values(), default=0) + 1
    if tokens > rows:
        raise InputError(
            f"the tokenizer has {tokens} tokens, the model {rows}",
            file=source,
            remedy="name the model's own tokenizer",
        )
