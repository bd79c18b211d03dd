"""Retrieval between sounds and images (CoLLAT, section 5.2).

CLIP compares texts with images.  A model whose sounds a locked CLIP text tower reads puts sounds into the same space,
so that sounds find images, and images sounds, although it has seen no image.  As in VGGSound, each clip has one frame
of its video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sharding.common.errors import InputError
from training.data.sampling.order import SequentialOrder
from training.data.sampling.originals import original_paths
from training.engine.distributed import Group
from training.evaluation.counting import rank_relevant
from training.evaluation.encoding import encode_clips, side_encoder
from training.evaluation.metrics import RECALL_AT, expected_average_precision, expected_recall
from training.evaluation.split import clips_of
from training.models.downloads import only_here
from training.models.encoders.published import Architecture, load_model, unavailable
from training.models.retriever import Retriever

KINDS = (".jpg", ".jpeg", ".png", ".webp")
DIRECTIONS = ("audio_to_image", "image_to_audio")
VISION = Architecture("CLIPVisionModelWithProjection", "CLIPVisionConfig")


class ImageTower:
    """CLIP's image tower, from the same folder or name on the hub as the text tower."""

    def __init__(self, source: str) -> None:
        import transformers

        self.model = load_model(VISION, source, {}).eval()
        try:
            self.processor = transformers.CLIPImageProcessor.from_pretrained(source, local_files_only=only_here(source))
        except Exception as error:  # the libraries raise errors of many kinds
            raise unavailable("image processor", source, error) from error

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        width: int = self.model.config.projection_dim
        return width

    @torch.inference_mode()
    def encode(self, files: Sequence[Path]) -> Tensor:
        """Vectors of length 1, ``[n, width]``, of image files; ``InputError`` if one cannot be read."""
        pixels = self.processor(images=[_picture(file) for file in files], return_tensors="pt")["pixel_values"]
        return F.normalize(self.model(pixel_values=pixels).image_embeds, dim=-1)


def _picture(file: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as found:
            return found.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"no image can be read: {error}", file=file) from error


def find_frames(folder: Path, clips: Sequence[str], originals: Mapping[str, str]) -> list[Path]:
    """The image of each clip: the file of ``folder`` that has the name of the clip's sound, or the end of its id.

    Args:
        folder: the images.
        clips: the ids of the clips.
        originals: the sound file of each clip, as far as it is known.

    Raises:
        InputError: a clip has none; it says how many have none.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder of images", file=folder)
    by_name = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in KINDS}
    names = [(Path(originals.get(clip, clip)).stem, clip.rpartition("/")[2]) for clip in clips]
    found = [by_name.get(end) or by_name.get(sound) for sound, end in names]
    missing = [place for place, file in enumerate(found) if file is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(clips)} clips have no image",
            file=folder,
            value=clips[missing[0]],
            remedy=f"name each image as its sound file, such as {names[missing[0]][0]}.jpg",
        )
    return [file for file in found if file is not None]


def evaluate_images(
    retriever: Retriever,
    manifest: Any,
    split: str,
    frames: Path,
    tower: ImageTower,
    batch_size: int,
    group: Group,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean reciprocal rank and R@k between the clips of a split and their images, in both directions.

    Args:
        retriever: its sounds must live in the space of the image tower.
        manifest: the manifest of the build.
        split: dataset/split.
        frames: a folder with one image for each clip.
        tower: encodes images.
        batch_size: clips, or images, that are encoded at once.
        group: the ranks; each encodes its share of the clips, and all of the images.
        progress: called with the number of batches of clips that are done, and of all.

    Raises:
        InputError: a clip has no image, or sounds and images have vectors of different width.
    """
    order = SequentialOrder(manifest.table, split, retriever.recipe.data, batch_size)
    clips = clips_of(order)
    files = find_frames(frames, clips, original_paths(manifest))
    encoder = side_encoder(retriever.model, retriever.recipe.data, retriever.device)
    sounds = retriever.model.head.embedding(encode_clips(encoder, manifest, order, group, progress))
    if sounds is None or sounds.shape[1] != tower.width:
        width = "no vectors" if sounds is None else f"vectors of {sounds.shape[1]} numbers"
        remedy = "train `collat` with text: {encoder: clip} on the text tower of the same CLIP"
        what = f"the model gives sounds {width}, and the image tower gives images vectors of {tower.width}"
        raise InputError(what, remedy=remedy)
    images = torch.cat([tower.encode(files[start : start + batch_size]) for start in range(0, len(files), batch_size)])
    scores = (sounds.double() @ images.double().t()).float().numpy()
    own = np.eye(len(clips), dtype=bool)
    found = {name: _figures(each, own) for name, each in zip(DIRECTIONS, (scores, scores.T), strict=True)}
    return {"split": split, "clips": len(clips), **found}


def _figures(scores: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """The figures of ``scores [queries, items]``.  With one relevant item, average precision is 1 over its rank."""
    ranking = rank_relevant(scores, own)
    count = len(own)
    figures = {"MRR": float(expected_average_precision(ranking, count).mean())}
    figures |= {f"R@{k}": float(expected_recall(ranking, k).mean()) for k in RECALL_AT}
    return figures | {"chance_MRR": float((1 / np.arange(1, count + 1)).mean())}
