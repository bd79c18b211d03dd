"""Dual encoders of CLAP's architecture as a ``ClapModel`` of transformers, with its processor and tokenizer.

Who uses such a model needs no Earshot.  The head `clap` is copied as it is.  The head `dual` has one linear layer a
side where ``ClapModel`` has two with an activation between them: the activation is "linear", and the second layer the
identity.  A RoBERTa whose first token is the caption's vector has no pooling layer where ``ClapModel`` has
``tanh(W x)``: W is then ``SMALL`` times the identity, for which tanh is the identity up to a share of
``(SMALL x)**2 / 3``, and the next layer divides by ``SMALL``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.models.encoders.audio.clap import ClapEncoder
from training.models.encoders.text.families import CLAP_TEXT, ROBERTA
from training.models.encoders.text.transformer import TransformerTextEncoder
from training.models.formats.proof import CheckClips, Proof
from training.models.formats.spelling import spelling_tokenizer
from training.models.heads.clap import ClapHead
from training.models.heads.dual import DualEncoder
from training.models.retriever import Retriever

LIBRARIES = ()
SMALL = 2.0**-12  # a power of two, so that scaling rounds nothing
SEGMENT_S = 10
# What a text tower's configuration says of its sizes; RoBERTa and CLAP's tower give them the same names.
_TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


def write(retriever: Retriever, origin: dict[str, Any], folder: Path) -> None:
    """Write the folder of a ``ClapModel``.

    Raises:
        InputError: ``ClapModel`` cannot compute what this model computes.
    """
    import transformers

    _check(retriever)
    transformers.utils.logging.disable_progress_bar()
    settings, head = cast(Any, retriever.recipe.head), retriever.model.head
    text, audio = cast(Any, retriever.model.text), cast(Any, retriever.model.audio)
    activation = settings.activation if isinstance(head, ClapHead) else "linear"
    projections = {"projection_dim": settings.dim, "projection_hidden_act": activation}
    sizes = {name: getattr(text.net.config, name) for name in _TEXT_SIZES}
    config = transformers.ClapConfig(
        text_config=sizes | projections,
        audio_config=audio.net.config.to_dict() | projections,
        logit_scale_init_value=1 / retriever.loss.health().get("tau", 1.0),
        **projections,
    )
    net = transformers.ClapModel(config)
    net.audio_model.load_state_dict(audio.net.state_dict())
    scale = _copy_text(net.text_model, text, settings.text_pooling)
    _copy_projection(net.audio_projection, head.audio_projection, 1.0)
    _copy_projection(net.text_projection, head.text_projection, scale)
    net.save_pretrained(folder)
    _processor(retriever).save_pretrained(folder)


def prove(retriever: Retriever, folder: Path, clips: CheckClips) -> Proof:
    """Load the folder with transformers, and compare its vectors with Earshot's on clips of at most 10 s."""
    import transformers

    model = transformers.ClapModel.from_pretrained(folder, use_safetensors=True).eval()
    processor = transformers.ClapProcessor.from_pretrained(folder)
    rate = retriever.audio_input.rate
    waves = [one.at(rate)[: SEGMENT_S * rate] for one in clips.recordings]
    proof = Proof(len(waves), len(clips.texts))
    with torch.inference_mode():
        words = processor(text=clips.texts, padding=True, truncation=True, return_tensors="pt")
        heard = processor(audio=waves, sampling_rate=rate, return_tensors="pt")
        found = model.get_text_features(**words).pooler_output
        sounds = model.get_audio_features(**heard).pooler_output
    proof.compare("vectors of texts", found, retriever.encode_texts(clips.texts)[0])
    proof.compare("vectors of clips", sounds, torch.cat([retriever.encode_wave(wave)[0] for wave in waves]))
    if any(len(one.wave) > SEGMENT_S * one.rate for one in clips.recordings):
        proof.remarks.append("clips were compared on their first 10 s")
    return proof


def usage(retriever: Retriever) -> str:
    """How the model is used, in Markdown."""
    return """The model loads with transformers alone, and with sentence-transformers:

```python
from transformers import ClapModel, ClapProcessor

model, processor = ClapModel.from_pretrained("FOLDER"), ClapProcessor.from_pretrained("FOLDER")
words = processor(text=["a dog barks"], padding=True, truncation=True, return_tensors="pt")
sounds = processor(audio=[wave], sampling_rate=48000, return_tensors="pt")
scores = model.get_text_features(**words).pooler_output @ model.get_audio_features(**sounds).pooler_output.T
```

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
model.similarity(model.encode(["a dog barks"]), model.encode([{"array": wave, "sampling_rate": 48000}]))
```

Of a clip longer than 10 s, the processor draws at random which 10 s are heard; Earshot hears all of it, in segments.
The weights must stay in float32 or bfloat16."""


def _check(retriever: Retriever) -> None:
    """``InputError`` where ``ClapModel`` cannot compute what the model computes, with the first reason."""
    obstacle = _obstacle(retriever)
    if obstacle is not None:
        what, value = obstacle
        raise InputError(what, value=value, remedy="convert to sentence-transformers, which holds any dual encoder")


def _obstacle(retriever: Retriever) -> tuple[str, Any] | None:
    recipe, model = retriever.recipe, retriever.model
    text, settings = model.text, cast(Any, recipe.head)
    if not isinstance(model.audio, ClapEncoder):
        return "ClapModel needs the audio encoder clap", recipe.audio.encoder
    if model.audio.front_end != "clap":
        return "a ClapModel that fuses features hears a random part of long clips", model.audio.front_end
    if retriever.audio_input.max_s < SEGMENT_S:
        return "ClapModel hears 10 s, and this model hears less", retriever.audio_input.max_s
    if not isinstance(text, TransformerTextEncoder) or text.family not in (CLAP_TEXT, ROBERTA):
        return "ClapModel needs the text encoder roberta or clap-text", recipe.text.encoder
    if not isinstance(model.head, DualEncoder | ClapHead):
        return "ClapModel needs the head dual or clap", type(model.head).__name__
    if settings.text_pooling not in ("encoder", "first"):
        return "ClapModel takes a caption's first token as its vector", settings.text_pooling
    return None


def _copy_text(target: Any, text: Any, pooling: str) -> float:
    """Fill a ``ClapTextModel``, and return the factor by which its pooled vectors are multiplied."""
    buffers = dict(target.named_buffers())  # the numbers of positions, which are no weights
    weights = buffers | text.net.state_dict()
    if text.family is CLAP_TEXT and pooling == "encoder":
        target.load_state_dict(weights)
        return 1.0
    dense = target.pooler.dense
    weights["pooler.dense.weight"] = SMALL * torch.eye(len(dense.weight))
    weights["pooler.dense.bias"] = torch.zeros_like(dense.bias)
    target.load_state_dict(weights)
    return SMALL


def _copy_projection(target: Any, source: Any, scale: float) -> None:
    """Fill a projection of ``ClapModel`` whose input has been multiplied with ``scale``."""
    if isinstance(source, nn.Identity):  # captions that are not projected
        source = nn.Linear(target.linear1.in_features, target.linear1.out_features)
        nn.init.eye_(source.weight)
        nn.init.zeros_(source.bias)
    single = isinstance(source, nn.Linear)
    first = source if single else source.linear1
    with torch.no_grad():
        target.linear1.weight.copy_(first.weight / scale)
        target.linear1.bias.copy_(first.bias)
        target.linear2.weight.copy_(_identity(target.linear2.weight) if single else source.linear2.weight)
        target.linear2.bias.copy_(torch.zeros_like(target.linear2.bias) if single else source.linear2.bias)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype)


def _processor(retriever: Retriever) -> Any:
    import transformers

    extractor = transformers.ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=retriever.audio_input.rate,
        frequency_min=50,
        frequency_max=14000,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    return transformers.ClapProcessor(extractor, spelling_tokenizer(retriever.tokenizer, retriever.recipe.data))
