"""Figures of classification; all are pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sharding.common.errors import InputError

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.bool_]


def label_matrix(found: Sequence[Sequence[str]], labels: Sequence[str]) -> Labels:
    """``[clips, labels]``: which labels each clip has; others than ``labels`` are left out."""
    numbers = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(found), len(labels)), dtype=bool)
    for row, own in enumerate(found):
        matrix[row, [numbers[label] for label in own if label in numbers]] = True
    return matrix


def figures(scores: Scores, wanted: Labels, split: str) -> dict[str, Any]:
    """Figures of ``scores [clips, labels]`` against ``wanted [clips, labels]``; clips without a label are left out.

    Raises:
        InputError: no clip has a label.
    """
    labelled = wanted.any(axis=1)
    if not labelled.any():
        raise InputError("no clip of the split has a label that the model tells apart", value=split)
    scores, wanted = scores[labelled], wanted[labelled]
    return {
        "clips": len(wanted),
        "labels": wanted.shape[1],
        "labels_a_clip": float(wanted.sum(axis=1).mean()),
        "accuracy": accuracy(scores, wanted),
        "mAP": mean_average_precision(scores, wanted),
        "chance_accuracy": float(wanted.mean()),
        "chance_mAP": float(wanted.mean(axis=0)[wanted.any(axis=0)].mean()),
    }


def accuracy(scores: Scores, labels: Labels) -> float:
    """The share of clips whose highest score is one of their labels, among clips that have one.

    Where several scores are highest, each counts with an equal share.

    Args:
        scores: ``[clips, labels]``.
        labels: ``[clips, labels]``.
    """
    labelled = labels.any(axis=1)
    scores, labels = scores[labelled], labels[labelled]
    highest = scores == scores.max(axis=1, keepdims=True)
    return float(((highest & labels).sum(axis=1) / highest.sum(axis=1)).mean())


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    """The mean over all labels that occur of the average precision of their clips (macro mAP).

    The clips of a label are ranked by falling score.  Clips of equal score count together, at the last of their ranks,
    as in scikit-learn's ``average_precision_score``.

    Args:
        scores: ``[clips, labels]``.
        labels: ``[clips, labels]``.
    """
    found = [_average_precision(scores[:, column], labels[:, column]) for column in np.flatnonzero(labels.any(axis=0))]
    return float(np.mean(found))


def _average_precision(scores: Scores, relevant: Labels) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(relevant[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # the last clip of each set of equal scores
    recall_steps = np.diff(hits[last], prepend=0)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float((recall_steps * precision).sum() / relevant.sum())
