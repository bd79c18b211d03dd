"""The demo's page: what was built, how training went, and what the model finds."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import soxr
import torch

from sharding.common.excerpts import picture, player
from sharding.common.pages import environment
from sharding.reports.contents import BuildContents, FirstSample, first_caption
from sharding.reports.outcomes import drop_reasons, fate_counts, split_outcomes
from sharding.reports.report import write_report
from sharding.rows import rows
from sharding.shards.manifest import Manifest
from training.data.sampling.mixture import select_rows
from training.data.sound.features import find_front_end
from training.data.sound.masking import Masking
from training.models.hub import load
from training.models.retriever import Retriever
from training.reports.curves import training_charts
from training.run.log import METRICS, read_records
from training.search.building import make_index, usual_windows
from training.search.finding import Finder, Query
from training.search.models import WholeModel
from training.search.parts import Source
from training.search.store import SoundIndex
from training.search.text_tower import add_text_tower

NAMES = ("R@1", "R@5", "R@10", "mAP@10", "mAP@16")
QUERIES = 8
FOUND = 3  # shown of each query
TEMPLATES = Path(__file__).parent / "templates"


def write_demo_report(folder: Path, build_out: Path, run_dir: Path, evaluation: dict[str, Any]) -> Path:
    """Write ``folder/report/index.html``, ``folder/report/metrics.json`` and ``folder/index``; returns the page.

    Args:
        folder: the demo's.
        build_out: the finished build; gets its own report, which the page links.
        run_dir: the finished run, with ``metrics.jsonl`` and ``export/``.
        evaluation: what ``earshot evaluate --json`` printed: ``split``, ``clips``, and metrics and
            their chance levels under ``text_to_audio`` and ``audio_to_text``.
    """
    manifest = Manifest.open(build_out)
    build = BuildContents(manifest)
    retriever = load(run_dir / "export")
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    metrics = {name: evaluation[name] for name in ("text_to_audio", "audio_to_text")}
    (report / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    held_out = list(rows(build.first.filter(pa.array(select_rows(build.first, evaluation["split"]))), FirstSample))
    model, split = (run_dir / "export").resolve(), evaluation["split"]
    source = Source(str(model), False, manifest.storage.url, (split,), usual_windows(retriever))
    values = {
        "title": "Earshot demo",
        "evaluation": evaluation,
        "names": NAMES,
        "tiles": _tiles(build, evaluation),
        "queries": _queries(build, _finder(folder / "index", retriever, manifest, source), held_out),
        "masked": _masked(build, retriever),
        "build": {
            "clips": build.fates.num_rows,
            "fates": fate_counts(build),
            "splits": split_outcomes(build),
            "reasons": drop_reasons(build),
        },
        "charts": training_charts(read_records(run_dir / METRICS), []),
        "build_report": os.path.relpath(write_report(build_out), report),
    }
    page = environment(TEMPLATES).get_template("demo.html").render(values)
    (report / "index.html").write_text(page, encoding="utf-8")
    return report / "index.html"


def _tiles(build: BuildContents, evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    found = evaluation["text_to_audio"]
    times = found["mAP@10"] / found["chance_mAP@10"]
    return [
        (f"{100 * found['mAP@10']:.1f} %", f"mAP@10, {times:.0f} times chance"),
        (f"{100 * found['R@1']:.1f} %", "found at rank 1"),
        (f"{evaluation['clips']}", "held-out recordings"),
        (f"{fate_counts(build)['written']:,}", f"clips written of {build.fates.num_rows:,}"),
    ]


def _finder(folder: Path, retriever: Retriever, manifest: Manifest, source: Source) -> Finder:
    """A search in an index of ``source``, which is kept in ``folder`` for `earshot search` and `earshot serve`."""
    make_index(retriever, manifest, source, folder)
    add_text_tower(retriever, folder)
    index = SoundIndex.open(folder)
    return Finder(index, WholeModel(index, retriever))


def _queries(build: BuildContents, finder: Finder, held_out: list[FirstSample]) -> list[dict[str, Any]]:
    """One caption of each of some held-out clips, and what is found for it among all of them."""
    asked = {first_caption(clip.captions): clip.clip_id for clip in held_out[:: max(1, len(held_out) // QUERIES)]}
    asked = dict(list(asked.items())[:QUERIES])
    queries = []
    for query, clip in asked.items():
        scores: dict[str, float] = {}  # of the best place of each recording, best first
        for hit in finder.find(Query((query,)), top=len(finder.index.entries)):
            scores.setdefault(hit.facts["clip_id"], hit.score)
        order = list(scores)
        shown = [asdict(build.view(name)) | {"score": scores[name], "right": name == clip} for name in order[:FOUND]]
        rank = order.index(clip) + 1
        queries.append({"query": query, "found": shown, "rank": rank, "hit": rank <= FOUND})
    return queries


def _masked(build: BuildContents, retriever: Retriever) -> dict[str, Any]:
    """A training clip's features as the encoder gets them, without and with masks."""
    settings = retriever.recipe.data.masking
    front_end = find_front_end(retriever.audio_input.front_end)
    trained = build.first.filter(pc.invert(pc.is_in(build.first["split"], pa.array(["validation", "evaluation"]))))
    shown = next(rows(trained if trained.num_rows else build.first, FirstSample))
    sound = build.wave(shown.clip_id, seconds=retriever.audio_input.max_s)
    assert sound is not None  # a written clip's sound lies in its shard
    wave, rate = sound
    if rate != front_end.rate:
        wave = soxr.resample(wave, rate, front_end.rate)
    lengths, seeds = torch.tensor([len(wave)]), torch.tensor([7])
    plain = front_end(torch.from_numpy(wave)[None], lengths, front_end.draw(seeds.numpy(), train=False))
    fill = front_end.floor if settings.fill == "floor" else front_end.published_fill
    masked = Masking(settings)(plain.clone(), torch.tensor([plain.shape[-1]]), seeds, fill)
    low, high = float(plain.min()), float(plain.max())
    return {
        "caption": first_caption(shown.captions),
        "sound": player(wave, front_end.rate),
        "plain": picture(plain[0].numpy(), low, high),
        "masked": picture(masked[0].numpy(), low, high),
    }
