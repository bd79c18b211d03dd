"""Exports as models of sentence-transformers: `SentenceTransformer` or, for several vectors, `MultiVectorEncoder`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from sharding.common.errors import InputError
from training.models.formats.late_interaction import has_late_interaction
from training.models.formats.proof import CheckClips, Proof
from training.models.retriever import Retriever

LIBRARIES = ("sentence_transformers",)


def write(retriever: Retriever, origin: dict[str, Any], folder: Path) -> None:
    """Write the folder of a model of sentence-transformers.

    Raises:
        InputError: the model's scores are neither products of two vectors nor late interaction.
    """
    from training.models.formats.encoder_module import EarshotEncoder

    single = _has_one_vector(retriever)
    if not single and not has_late_interaction(retriever.model.head):
        raise InputError(
            "its scores are neither products of two vectors nor late interaction, which is all that "
            "sentence-transformers has",
            value=retriever.method,
            remedy="convert a model with the head dual, or with token-attention or sentence-attention over segments",
        )
    arguments = {} if single else {"similarity_fn_name": "meanmaxsim"}
    model = _class(single)(modules=[EarshotEncoder(retriever, origin)], device="cpu", **arguments)
    model.save_pretrained(str(folder), create_model_card=False)


def prove(retriever: Retriever, folder: Path, clips: CheckClips) -> Proof:
    """Load the folder with sentence-transformers, and compare its vectors or its scores with Earshot's."""
    single = _has_one_vector(retriever)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = _class(single)(str(folder), trust_remote_code=True, device="cpu", local_files_only=True)
    rate = retriever.audio_input.rate
    proof = Proof(len(clips.recordings), len(clips.texts))
    sounds = [{"array": one.wave, "sampling_rate": one.rate} for one in clips.recordings]
    words, heard = _encoded(model, clips.texts), _encoded(model, sounds)
    expected = [retriever.encode_wave(one.at(rate)) for one in clips.recordings]
    if single:
        proof.compare("vectors of texts", torch.stack(words), retriever.encode_texts(clips.texts)[0])
        proof.compare("vectors of clips", torch.stack(heard), torch.cat([side[0] for side in expected]))
        return proof
    texts, longest = retriever.encode_texts(clips.texts), 0.0
    for vectors, side in zip(heard, expected, strict=True):
        scores, exact = model.similarity(words, [vectors])[:, 0], retriever.score(texts, side)[:, 0]
        if len(vectors) == 1:
            proof.compare("scores of clips of one segment", scores, exact)
        else:
            longest = max(longest, float((scores - exact).abs().max()))
    if not proof.differences:
        raise InputError(
            "every clip to compare on is longer than a segment, and late interaction is exact only for clips of one",
            value=f"{retriever.audio_input.segment_s:g} s",
            remedy="name clips for --check of which one is shorter",
        )
    if longest:
        proof.remarks.append(
            f"scores of clips of several segments are late interaction, up to {longest:.3g} from Earshot's scores"
        )
    return proof


def usage(retriever: Retriever) -> str:
    """How the model is used, in Markdown."""
    single = _has_one_vector(retriever)
    name = _class(single).__name__
    late = (
        "\nThe score is late interaction: the mean over words of the best segment. It equals the trained score for\n"
        "clips of one segment; of longer ones, let Earshot score the first candidates again.\n"
    )
    return f"""The model loads with sentence-transformers 6.2 or newer. Earshot must be installed too, because its
spectrograms and encoders run; `trust_remote_code=True` allows sentence-transformers to import it. No code comes with
this folder.

```python
from sentence_transformers import {name}

model = {name}("FOLDER", trust_remote_code=True)
texts = model.encode(["a dog barks"])
sounds = model.encode([{{"array": wave, "sampling_rate": 44100}}])  # mono, float, full scale is 1
print(model.similarity(texts, sounds))
```
{"" if single else late}"""


def _has_one_vector(retriever: Retriever) -> bool:
    return retriever.model.head.embedding(retriever.encode_texts(["a sound"])) is not None


def _class(single: bool) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer if single else sentence_transformers.MultiVectorEncoder


def _encoded(model: Any, inputs: list[Any]) -> Any:
    """The vectors of inputs, in batches, so that what is padded is compared too."""
    return model.encode(inputs, batch_size=4, convert_to_numpy=False, show_progress_bar=False)
