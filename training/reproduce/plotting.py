"""The picture of a plan whose systems are points of curves: figures over the size of the data, one curve a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharding.common.pictures import write_figure
from training.reproduce.plans import Point

MEASURES = (("R@1", "text to audio, R@1 (%)"), ("mAP@10", "text to audio, mAP@10 (%)"))


def write_curves(rows: Mapping[str, Any], curve: Mapping[str, Point], what: str, path: Path) -> None:
    """Write the picture: means over seeds, with the range of the seeds as bars.

    Args:
        rows: the rows of a plan that was carried out, by system.
        curve: where each system stands.
        what: the name of the horizontal axis.
        path: its suffix chooses the format.

    Raises:
        InputError: the file cannot be written, or its suffix names no known format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(5 * len(MEASURES), 4), layout="constrained")
    for panel, (measure, name) in zip(axes, MEASURES, strict=True):
        for model in dict.fromkeys(point.model for point in curve.values()):
            places = sorted((point.x, label) for label, point in curve.items() if point.model == model)
            ours = [rows[label]["ours"]["text_to_audio"][measure] for _, label in places]
            means = [100 * each["mean"] for each in ours]
            # where all seeds are equal, their mean may be rounded to outside of their range
            below = [100 * max(0.0, each["mean"] - each["least"]) for each in ours]
            above = [100 * max(0.0, each["most"] - each["mean"]) for each in ours]
            panel.errorbar([x for x, _ in places], means, (below, above), marker="o", capsize=3, label=model)
        panel.set(xscale="log", xlabel=what, ylabel=name)
        panel.legend()
    write_figure(figure, path)
