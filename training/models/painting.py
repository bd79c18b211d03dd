"""Images of sounds (CoLLAT, section 5.4): a diffusion pipeline that CLIP's text tower guides is guided by sound.

Such a pipeline reads the vectors that the text tower gives for the tokens of a prompt.  A model whose sounds the same
tower reads gives vectors of the same kind for a sound, so the pipeline needs no training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.models.collat.locked_text import LockedTextModel
from training.models.downloads import only_here
from training.models.encoders.published import unavailable
from training.models.retriever import Retriever
from training.models.waves import prepare

NEAR = 1e-2  # relative difference of embeddings that half precision explains


class Painter:
    """Paints sounds.

    Args:
        retriever: a model of the task collat.
        source: a Stable Diffusion pipeline in the format of diffusers, whose weights are safetensors: a folder, or a
            name on the Hugging Face hub.

    Raises:
        InputError: diffusers is not installed, there is no such pipeline, or another text tower guides it.
    """

    def __init__(self, retriever: Retriever, source: str) -> None:
        if not isinstance(retriever.model, LockedTextModel):
            remedy = "name a model of the task collat"
            raise InputError("the model writes no sound as the tokens of a text", remedy=remedy)
        try:
            from diffusers import StableDiffusionPipeline
            from diffusers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise InputError("images need diffusers", remedy="pip install earshot[images]") from error
        disable_progress_bar()  # of loading, which takes seconds
        try:
            self.pipeline: Any = StableDiffusionPipeline.from_pretrained(
                source, local_files_only=only_here(source), use_safetensors=True
            )
        except Exception as error:  # the libraries raise errors of many kinds
            raise unavailable("diffusion pipeline", source, error) from error
        self.pipeline.set_progress_bar_config(disable=True)
        self.retriever = retriever
        self.model: LockedTextModel = retriever.model
        own: Any = self.model.text.embedding("before").weight
        theirs = self.pipeline.text_encoder.get_input_embeddings().weight.to(own)
        if own.shape != theirs.shape or not torch.allclose(own, theirs, rtol=NEAR, atol=NEAR * float(own.std())):
            raise InputError(
                "the pipeline is guided by another text tower than the one that reads the model's sounds",
                file=source,
                remedy="train `collat` with text: {encoder: clip-text, source: FOLDER}, the pipeline's text_encoder",
            )

    @torch.inference_mode()
    def prompt(self, wave: Any) -> Tensor:
        """The vectors ``[1, N, d]`` that guide the pipeline; ``wave`` as of `Retriever.encode_wave`."""
        features, frames = (tensor.to(self.retriever.device) for tensor in prepare([wave], self.retriever.audio_input))
        seeds = torch.zeros(1, dtype=torch.int64, device=features.device)
        found: Tensor = self.model.write(features, frames, seeds).read.encoded.tokens
        return found

    def paint(self, wave: Any, steps: int, seed: int, size: int | None = None) -> Any:
        """An image of a sound, as a PIL image.

        Args:
            wave: as for `Retriever.encode_wave`.
            steps: the steps of the pipeline's denoising.
            seed: the seed of the noise from which the image is made.
            size: its height and width in pixels; None: the pipeline's own.
        """
        vectors = self.prompt(wave).to(self.pipeline.device, self.pipeline.dtype)
        noise = torch.Generator("cpu").manual_seed(seed)
        made = self.pipeline(prompt_embeds=vectors, num_inference_steps=steps, generator=noise, height=size, width=size)
        return made.images[0]
