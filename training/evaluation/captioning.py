"""Captions that a captioner writes for the clips of a split, on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from training.data.sampling.order import SequentialOrder
from training.engine.distributed import Group
from training.evaluation.encoding import encode_clips
from training.evaluation.hearing import Hearing
from training.evaluation.split import read_split
from training.models.captioner import Captioner


@dataclass(frozen=True)
class WrittenCaptions:
    """Captions by clip.

    Attributes:
        clips: clip_ids.
        written: the captioner's text for each clip.
        references: the captions of each clip in the build.
    """

    clips: list[str]
    written: list[str]
    references: list[list[str]]


def write_captions(
    model: Captioner,
    manifest: Any,
    split: str,
    batch_size: int,
    group: Group,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenCaptions:
    """The captions of all clips of a split, the same on every rank.

    Args:
        model: writes them.
        manifest: the manifest of the build.
        split: dataset/split.
        batch_size: clips that a rank encodes at once.
        group: the ranks; each takes whole batches in turn.
        progress: called with the number of batches that are done, and of all batches.

    Raises:
        InputError: a clip has no caption to be compared with.
    """
    settings, tokenizer = model.recipe.data, model.tokenizer
    device = next(model.model.parameters()).device
    order = SequentialOrder(manifest.table, split, settings, batch_size)
    captions = read_split(manifest.table, split, order, settings)

    def call(features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, ...]:
        clips = features.to(device), frames.to(device), seeds.to(device)
        return (model.model.write(*clips, first=tokenizer.bos_token_id, last=tokenizer.eos_token_id),)

    (tokens,) = encode_clips(Hearing(call, settings, model.audio_input), manifest, order, group, progress)
    written = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens.tolist()]
    references: list[list[str]] = [[] for _ in captions.clips]
    for clip, text in zip(captions.clip_of, captions.captions, strict=True):
        references[clip].append(text)
    return WrittenCaptions(captions.clips, written, references)
