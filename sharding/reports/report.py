"""The HTML report of a build: which clips were written into the shards, which were not, and why.

``OUT/report/index.html`` is one file that loads nothing else: pictures and players are inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from sharding import layout
from sharding.common.pages import environment
from sharding.reports.contents import BuildContents
from sharding.reports.holdings import (
    dataset_holdings,
    note_counts,
    part_listings,
    sample_views,
    settings_of,
    totals,
)
from sharding.reports.outcomes import differences, drop_reasons, fate_counts, split_outcomes, trimmed_clips
from sharding.reports.pairs import dropped_pairs, leak_evidence, undecided_pairs, unexplained_pairs
from sharding.shards.manifest import Manifest, SplitProtection

TEMPLATES = Path(__file__).parent / "templates"


def write_report(out_url: str | PathLike[str]) -> str:
    """Write ``report/index.html`` into the finished build at ``out_url`` and return its full name.

    The sound of a written clip comes from the shards.  The sound of any other clip comes from its dataset's folder,
    while this lies where it was when the build was made.

    Raises:
        InputError: there is no finished build.
    """
    build = BuildContents(Manifest.open(out_url))
    page = environment(TEMPLATES).get_template("report.html").render(page_values(build))
    build.storage.write(f"{layout.REPORT}/index.html", page.encode())
    return build.storage.name(f"{layout.REPORT}/index.html")


def absent_protection(protection: Sequence[SplitProtection]) -> str:
    """Protected splits of which the build has no clip, dataset by dataset: ``clotho (evaluation, validation), ...``."""
    splits: dict[str, list[str]] = {}
    for one in protection:
        if not one["clips"]:
            splits.setdefault(one["dataset"], []).append(one["split"])
    return ", ".join(f"{dataset} ({', '.join(names)})" for dataset, names in splits.items())


def page_values(build: BuildContents) -> dict[str, Any]:
    """Every value that the template ``report.html`` shows."""
    fates = fate_counts(build)
    undecided, some_undecided = undecided_pairs(build)
    unexplained, some_unexplained = unexplained_pairs(build)
    return {
        "title": "Earshot build report",
        "clips": build.fates.num_rows,
        "fates": fates,
        "plan": build.dataset["plan"][:16],
        "totals": totals(build, fates),
        "splits": split_outcomes(build),
        "reasons": drop_reasons(build),
        "protection": build.dataset.get("protection", []),
        "absent_protection": absent_protection(build.dataset.get("protection", [])),
        "protection_is_known": "protection" in build.dataset,
        "leak_evidence": leak_evidence(build),
        "leak_pairs": dropped_pairs(build, "withheld"),
        "trimmed": trimmed_clips(build),
        "duplicate_pairs": dropped_pairs(build, "duplicate"),
        "undecided": undecided,
        "undecided_pairs": some_undecided,
        "unexplained": unexplained,
        "unexplained_pairs": some_unexplained,
        "samples": sample_views(build),
        "datasets": dataset_holdings(build),
        "parts": part_listings(build),
        "remarks": [(name, notes) for name, notes in build.overview["notes"].items() if notes],
        "lists": build.overview["lists"],
        "listed": sorted(build.overview["listed"].items()),
        "shared": build.overview["shared_captions"],
        "differences": differences(build),
        "notes": note_counts(build),
        "settings": settings_of(build.dataset),
    }
