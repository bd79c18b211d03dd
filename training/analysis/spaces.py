"""The spaces in which texts and sounds meet, and figures about them (Calvet and Toledano 2025, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from training.engine.distributed import LocalGroup
from training.models.heads.base import Head, Side
from training.models.heads.token_attention import TokenAttention
from training.tasks.health import alignment_and_uniformity

Floats = npt.NDArray[np.float64]
NEIGHBOURS = 15  # of UMAP


@dataclass(frozen=True)
class Space:
    """Vectors of texts and of sounds.

    Attributes:
        name: what they are.
        texts: ``[texts, d]``.
        sounds: ``[sounds, d]``.
    """

    name: str
    texts: Tensor
    sounds: Tensor


def spaces(head: Head, text: Side, audio: Side) -> list[Space]:
    """The spaces of a head: the shared one, or keys and values beside queries, averaged over tokens and segments."""
    texts, sounds = head.embedding(text), head.embedding(audio)
    if texts is not None and sounds is not None:
        return [Space("shared space", texts, sounds)]
    if isinstance(head, TokenAttention):
        queries, mask = text[0], audio[2]
        share = mask.to(queries.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
        real = (queries.abs().sum(-1) > 0).to(queries.dtype)
        mean = (queries * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return [
            Space(f"queries and {name}", mean, torch.einsum("bm,bmd->bd", share, vectors.to(share.dtype)))
            for name, vectors in (("keys", audio[0]), ("values", audio[1]))
        ]
    return []


def project(space: Space, seed: int = 0) -> tuple[str, Floats, Floats]:
    """Two numbers for each text and each sound, and the method: UMAP, or principal components where it is absent.

    Vectors are first given the length 1.  Each of the two numbers is scaled to 0..1.
    """
    both = torch.nn.functional.normalize(torch.cat((space.texts, space.sounds)).double(), dim=1).numpy()
    method, points = "principal components", _components(both)
    if len(both) > NEIGHBOURS:
        try:
            import umap
        except ImportError:
            pass
        else:
            maker = umap.UMAP(n_components=2, n_neighbors=NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1)
            method, points = "UMAP", np.asarray(maker.fit_transform(both), np.float64)
    low, high = points.min(0), points.max(0)
    points = (points - low) / np.where(high > low, high - low, 1)
    return method, points[: len(space.texts)], points[len(space.texts) :]


def _components(vectors: Floats) -> Floats:
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(vectors), 2))
    kept = min(2, len(sizes))
    found[:, :kept] = left[:, :kept] * sizes[:kept]
    return found


def figures(space: Space) -> dict[str, float]:
    """Alignment, uniformity and the gap between the modalities; row i of texts belongs to row i of sounds.

    The gap is the distance of the mean text from the mean sound (Liang et al. 2022, arXiv 2203.02053, section 2), of
    vectors of length 1.
    """
    texts, sounds = (torch.nn.functional.normalize(each.double(), dim=1) for each in (space.texts, space.sounds))
    found = alignment_and_uniformity(sounds, texts, LocalGroup())
    return found | {"gap": float((texts.mean(0) - sounds.mean(0)).norm())}


@dataclass(frozen=True)
class Distances:
    """Distances, 1 - score, of matched pairs and of as many mismatched ones, and Welch's t-test between them."""

    matched: Floats
    mismatched: Floats

    def test(self) -> dict[str, float]:
        """``t``, ``p``, and how many standard deviations the means are apart (``d``, Cohen's)."""
        found: Any = stats.ttest_ind(self.mismatched, self.matched, equal_var=False)
        spread = np.sqrt((self.matched.var(ddof=1) + self.mismatched.var(ddof=1)) / 2)
        apart = float((self.mismatched.mean() - self.matched.mean()) / spread) if spread > 0 else 0.0
        return {"t": float(found.statistic), "p": float(found.pvalue), "d": apart}

    def histogram(self, bins: int = 40) -> tuple[list[float], list[int], list[int]]:
        """The edges of bins, and how many matched and mismatched pairs lie in each."""
        edges = np.histogram_bin_edges(np.concatenate((self.matched, self.mismatched)), bins)
        counts = [np.histogram(each, edges)[0].tolist() for each in (self.matched, self.mismatched)]
        return edges.tolist(), counts[0], counts[1]


def distances(scores: npt.NDArray[np.float32], clip_of: npt.NDArray[np.int64], seed: int = 0) -> Distances:
    """For each caption: the distance to its own clip, and to another one that is drawn at random."""
    rows = np.arange(len(clip_of))
    step = np.random.default_rng(seed).integers(1, max(2, scores.shape[1]), len(rows))
    other = (clip_of + step) % scores.shape[1]
    return Distances(1 - scores[rows, clip_of].astype(np.float64), 1 - scores[rows, other].astype(np.float64))
