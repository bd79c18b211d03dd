"""A picture of a build: durations, sample rates, captions and licences of each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sharding.common.pictures import write_figure
from sharding.reports.stats import DatasetStats, ranked_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _PAPER = "#1d2430", "#5b6675", "#ffffff"
_COLOURS = {"durations": "#0b7a75", "rates": "#4a7fc1", "words": "#e09f3e", "licences": "#8d78b8"}
_MOST = 6  # licences and rates with a bar of their own; one more bar sums up the others
_LABEL = 34  # characters of a licence that are shown


def write_plots(datasets: Mapping[str, DatasetStats], path: Path) -> None:
    """Write one picture with a row for each dataset.

    The suffix of ``path`` chooses the format of the picture.

    Raises:
        InputError: the file cannot be written, or its suffix names no known format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = max(1, len(datasets))
    figure, grid = pyplot.subplots(
        rows, 4, figsize=(16, 2.9 * rows + 0.5), squeeze=False, facecolor=_PAPER, layout="constrained"
    )
    for axes, (name, about) in zip(grid, datasets.items(), strict=False):  # without datasets one row stays empty
        rates = {f"{int(rate) / 1000:g} kHz": count for rate, count in about.source_rates.items()}
        _durations(axes[0], about.durations)
        _bars(axes[1], "sample rate of the published file", rates, _COLOURS["rates"])
        _words(axes[2], about.words)
        _bars(axes[3], "licence", about.licences, _COLOURS["licences"])
        axes[0].set_ylabel(name, fontsize=13, fontweight="bold", color=_INK)
    figure.suptitle(f"{sum(len(about.durations) for about in datasets.values()):,} clips in shards", fontsize=14)
    write_figure(figure, path)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=_SOFT, loc="left")
    axes.tick_params(colors=_SOFT, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#dfe4ea")


def _durations(axes: Axes, durations: list[float]) -> None:
    """A histogram with a logarithmic axis, because clips last from tenths of a second to many hours."""
    _plain(axes, f"duration of a clip (median {np.median(durations):.1f} s)" if durations else "duration of a clip")
    if not durations:
        return
    low, high = min(durations) * 0.9, max(durations) * 1.1
    axes.hist(durations, bins=list(np.geomspace(low, high, 40)), color=_COLOURS["durations"])
    axes.set_xscale("log")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300, 1800, 7200, 36000, 86400) if low <= t <= high]
    axes.set_xticks(
        ticks, [f"{t:g} s" if t < 60 else f"{t / 60:g} min" if t < 3600 else f"{t / 3600:g} h" for t in ticks]
    )
    axes.minorticks_off()
    axes.set_yticks([])


def _words(axes: Axes, words: list[int]) -> None:
    _plain(axes, f"words in a caption (median {int(np.median(words))})" if words else "words in a caption")
    if words:
        top = int(np.percentile(words, 99.5)) + 2
        axes.hist(np.minimum(words, top), bins=list(np.arange(-0.5, top + 1.5)), color=_COLOURS["words"])
        axes.set_yticks([])


def _bars(axes: Axes, title: str, counts: Mapping[str, int], colour: str) -> None:
    _plain(axes, title)
    shown = ranked_counts(counts, _MOST)
    plain = [name.split("://")[-1].removeprefix("creativecommons.org/").strip("/") for name, _ in shown]
    names = [name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…" for name in plain]
    bars = axes.barh(range(len(shown)), [count for _, count in shown], color=colour, height=0.62)
    axes.bar_label(bars, [f"{count:,}" for _, count in shown], padding=3, fontsize=8.5, color=_INK)
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(max(len(shown), 4) - 0.5, -0.6)
    axes.set_xticks([])
    axes.margins(x=0.18)
