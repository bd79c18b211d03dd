"""The tags of clips as sets of clusters, which `objectives/pairs/hybrid_nce.py` compares.

A clip's tags are its label captions, cut at commas.  Each tag is a cluster of its own, or a file says which tags are
one: ``{"dog barking": {"cluster_index": 3}, "bark": {"cluster_index": 3}, "noise": {"cluster_index": null}}``, the form
that AuroLA publishes; ``null`` leaves a tag out, and so does its absence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from sharding.common.errors import InputError
from training.data.captions import normalise
from training.data.sampling.mixture import select_rows
from training.data.settings import DataSettings
from training.objectives.pairs.tags import pack

MOST_CLUSTERS = 65536  # 8 KiB for each item of a batch


@dataclass(frozen=True)
class TagVocabulary:
    """Which cluster each tag belongs to.

    Attributes:
        clusters: tag, in lower case with single spaces, to the number of its cluster.
        label_captions_only: whether a sample has tags only where its drawn caption is one of its labels.
    """

    clusters: Mapping[str, int] = field(default_factory=dict)
    label_captions_only: bool = False

    @property
    def size(self) -> int:
        """The number of clusters."""
        return max(self.clusters.values(), default=-1) + 1

    def words(self, labels: Sequence[Sequence[str]], texts: Sequence[str], settings: DataSettings) -> Tensor:
        """The sets of tags of ``b`` samples, ``[b, w]`` int64; see `objectives.pairs.tags.pack`.

        Args:
            labels: for each sample the label captions of its clip.
            texts: the drawn captions, as the model reads them.
            settings: the recipe's data section.
        """
        found = []
        for own, text in zip(labels, texts, strict=True):
            counts = not self.label_captions_only or text in {normalise(label, settings) for label in own}
            found.append({self.clusters[tag] for tag in split_tags(own) if tag in self.clusters} if counts else set())
        return pack(found, self.size)


def split_tags(labels: Iterable[str]) -> list[str]:
    """Label captions as tags: each whole, and cut at commas where it has any; in lower case with single spaces."""
    found = []
    for label in labels:
        parts = label.split(",")
        found += [" ".join(part.lower().split()) for part in dict.fromkeys([label, *parts])]
    return [tag for tag in found if tag]


def read_vocabulary(table: pa.Table, settings: DataSettings) -> TagVocabulary:
    """The tags that a recipe's data section asks for.

    Args:
        table: the manifest; ``tags: labels`` makes a cluster of every tag of the clips that training reads.
        settings: the recipe's data section.

    Raises:
        InputError: the file is missing or has another form, or there are too many clusters.
    """
    if settings.tags is None:
        return TagVocabulary()
    clusters = _own_clusters(table, settings) if settings.tags == "labels" else read_clusters(Path(settings.tags))
    if not clusters:
        remedy = "leave out data.tags, or give clips labels, or annotations with tags (data.annotations)"
        raise InputError("no clip has a tag", value=settings.tags, remedy=remedy)
    if max(clusters.values()) >= MOST_CLUSTERS:
        remedy = "join tags that mean the same: earshot clusters writes such a file"
        raise InputError(f"there are more than {MOST_CLUSTERS} clusters of tags", value=settings.tags, remedy=remedy)
    return TagVocabulary(clusters, settings.tagged == "label captions")


def _own_clusters(table: pa.Table, settings: DataSettings) -> dict[str, int]:
    """Every tag of the clips of the mixture as a cluster, numbered in the order of the alphabet."""
    tags: set[str] = set()
    for item in settings.train:
        captions = pc.list_flatten(table["captions"].filter(pa.array(select_rows(table, item.split)))).combine_chunks()
        labels = captions.filter(pc.equal(captions.field("kind"), "label"))
        for label in pc.unique(labels.field("text")).to_pylist():
            tags.update(part for part in split_tags([label]) if "," not in part)
    return {tag: number for number, tag in enumerate(sorted(tags))}


def read_clusters(path: Path) -> dict[str, int]:
    """The clusters of a file in the published form, without the tags that have none.

    Raises:
        InputError: the file is missing, is no JSON object, or a tag's entry has another form.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"the clusters of tags cannot be read: {error}", file=str(path)) from error
    if not isinstance(tree, dict):
        raise InputError(
            "the file of clusters does not hold a JSON object", file=str(path), remedy='{"tag": {"cluster_index": 0}}'
        )
    found = {}
    for tag, entry in tree.items():
        number = _cluster_index(entry, tag, path)
        if number is not None:
            found[" ".join(tag.lower().split())] = number
    return found


def _cluster_index(entry: Any, tag: str, path: Path) -> int | None:
    number = entry.get("cluster_index", "absent") if isinstance(entry, dict) else "absent"
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        remedy = '{"cluster_index": 0}, or null for a tag that belongs to none'
        raise InputError(
            f"the cluster_index of {tag!r} must be a whole number, 0 or more",
            file=str(path),
            value=entry,
            remedy=remedy,
        )
    return number
