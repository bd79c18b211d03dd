"""The page of a run: one HTML file that opens from disk, with everything inside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.pages import environment
from sharding.common.sizes import show_hours
from sharding.common.storage import located
from sharding.shards.manifest import Manifest
from training.analysis.examples import Clips, browse, chosen
from training.analysis.page import TEMPLATES as EXAMPLE_TEMPLATES
from training.evaluation.figures import BACKWARD
from training.evaluation.scores.comparing import compare
from training.evaluation.scores.files import ScoreFile
from training.reports.curves import BOUNDS, mapping_of, training_charts, validation_charts
from training.reports.run_files import RunFiles
from training.reports.timeline import (
    EARLY,
    FAILED,
    GOING,
    STOPPED,
    Effort,
    Stretch,
    effort_of,
    resumptions,
    state_of,
    stretches,
)

TEMPLATES = Path(__file__).parent / "templates"
_OF_ALL = ("R@", "mAP", "nDCG", "accuracy", "P@")  # figures between 0 and 1, which are shown in percent


@dataclass(frozen=True)
class PageSettings:
    """What a page shows besides the run's own files.

    Attributes:
        scores: folders that `scores` wrote.
        shards: the build of these scores, for the sound of examples; None: they are shown without sound.
        price: the price of one device for an hour; None: not known.
        examples: captions that are shown of each folder of scores: half of them the worst ones.
    """

    scores: tuple[str, ...] = ()
    shards: str | None = None
    price: float | None = None
    examples: int = 12


def write_run_report(run: str | Path, out: str, settings: PageSettings) -> dict[str, Any]:
    """Write the page of a run, which may be finished, failed or still going.

    Args:
        run: its folder, or an address in an object store.
        out: the HTML file.
        settings: what else is shown.

    Returns:
        what became of the run, its steps, hours, cost and last figures.

    Raises:
        InputError: no run is there, or scores cannot be read.
    """
    files = RunFiles.open(run)
    found = stretches(files.events, files.records, files.is_held, files.is_stopped_early)
    effort = effort_of(found, settings.price)
    values = _values(files, found, effort, settings)
    page = environment(TEMPLATES, EXAMPLE_TEMPLATES).get_template("run.html").render(values)
    storage, name = located(out)
    storage.write(name, page.encode())
    return {
        "out": out,
        "state": values["state"],
        "steps": values["taken"],
        "hours": None if effort is None else effort.hours,
        "device_hours": None if effort is None else effort.device_hours,
        "cost": None if effort is None else effort.cost,
        "validation": values["validation"]["figures"],
    }


def _values(files: RunFiles, found: Sequence[Stretch], effort: Effort | None, settings: PageSettings) -> dict[str, Any]:
    """Every value that the template ``run.html`` shows."""
    marks = resumptions(found)
    starts = [event for event in files.events if event["what"] == "start"]
    taken = files.records[-1]["step"] + 1 if files.records else 0
    manifest = None if settings.shards is None else Manifest.open(settings.shards)
    unit = str(mapping_of(starts[-1].get("data")).get("unit", "clips")) if starts else "clips"
    return {
        "title": f"Earshot: the run {Path(files.place).name}",
        "name": Path(files.place).name,
        "place": files.place,
        "state": state_of(found, files.export is not None, files.is_held),
        "remark": _remark(found),
        "taken": taken,
        "steps": starts[-1].get("steps") if starts else None,
        "tiles": _tiles(files, taken, starts, effort),
        "charts": training_charts(files.records, marks, unit),
        "validations": validation_charts(files.records, marks),
        "marks": marks,
        "not_finite": files.not_finite,
        "unit": unit,
        "validation": _validation(files),
        "evaluations": [_evaluation(folder, manifest, settings.examples) for folder in settings.scores],
        "with_sound": settings.shards is not None,
        "stretches": [_shown(each) for each in found],
        "effort": effort,
        "price": settings.price,
        "show_hours": show_hours,
        "start": starts[-1] if starts else None,
        "peak": max((event.get("gpu_peak_bytes") or 0 for event in files.events), default=0),
        "checkpoints": files.checkpoints,
        "recipe": files.recipe.splitlines(),
        "about": _about(files.tree),
    }


def _remark(found: Sequence[Stretch]) -> str:
    """One sentence about a run that did not come to its end."""
    if not found:
        return ""
    last = found[-1]
    return {
        FAILED: f"It failed at step {last.last}: {last.error}",
        EARLY: f"Its sweep ended it after step {last.last}: {last.error or 'other trials were ahead'}.",
        GOING: "The page shows it as it is now.",
        STOPPED: f"It was interrupted after step {last.last}."
        if last.error
        else f"Its process ended without a word after step {last.last}, as one that is killed does.",
    }.get(last.how, "")


def _tiles(
    files: RunFiles, taken: int, starts: Sequence[Mapping[str, Any]], effort: Effort | None
) -> list[tuple[str, str]]:
    steps = starts[-1].get("steps") if starts else None
    tiles = [(f"{taken:,}" if steps is None else f"{taken:,} of {steps:,}", "steps")]
    losses = [record["loss"] for record in files.records if isinstance(record.get("loss"), int | float)]
    if losses:
        tail = losses[-10:]
        tiles.append((f"{sum(tail) / len(tail):.4g}", "loss, mean of the last steps"))
    metric = mapping_of(files.tree.get("validation")).get("metric")
    value = _last_validation(files)[1].get(str(metric))
    if value is not None:
        tiles.append((_figure(str(metric), value), f"validation, {_words(str(metric))}"))
    if effort is not None:
        tiles.append((show_hours(effort.hours), f"{effort.device_hours:.3g} {effort.unit}"))
        if effort.cost is not None:
            tiles.append((f"{effort.cost:,.2f}", "cost, estimated"))
    return tiles


def _last_validation(files: RunFiles) -> tuple[int | None, dict[str, float]]:
    """The step and the figures of the export, or else those of the last validation."""
    if files.export is not None and files.export.get("validation"):
        return files.export.get("step"), dict(files.export["validation"])
    for record in reversed(files.records):
        if mapping_of(record.get("validation")):
            return record["step"] + 1, dict(record["validation"])
    return None, {}


def _validation(files: RunFiles) -> dict[str, Any]:
    """The figures of the validation split as rows of a table."""
    step, figures = _last_validation(files)
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    rows = []
    for name, value in numbers.items():
        task, slash, measure = name.rpartition("/")
        if measure.startswith(BOUNDS):
            continue
        bounds = [numbers.get(f"{task}{slash}{prefix}{measure}") for prefix in BOUNDS]
        low, high, chance = (None if each is None else _figure(measure, each) for each in bounds)
        rows.append(
            {
                "name": _words(name),
                "value": _figure(measure, value),
                "ties": f"{low} to {high}" if low != high else None,
                "chance": chance or "",
            }
        )
    return {
        "split": mapping_of(files.tree.get("validation")).get("split"),
        "step": step,
        "is_exported": files.export is not None,
        "is_scored": any(name.startswith("text_to_audio/") for name in numbers),  # else `scores` refuses the model
        "rows": rows,
        "figures": numbers,
    }


def _evaluation(folder: str, manifest: Manifest | None, examples: int) -> dict[str, Any]:
    """Figures with intervals from a folder of scores, and captions that were easy and hard.

    ``manifest`` is that of the build whose clips are to be heard, and ``examples`` the number of captions.
    """
    scores = ScoreFile.open(folder)
    questions = scores.questions
    if not questions.captions:
        remedy = "name scores of captions, which `scores` writes without --queries"
        raise InputError("these scores are of queries whose clips are not known", file=folder, remedy=remedy)
    measured = compare({"model": [scores]})["systems"]["model"]
    tasks = {name: rows for name, rows in measured.items() if name != "seeds"}
    if manifest is not None and manifest.dataset["plan"] != scores.head.get("build"):
        remedy = "name the build of these scores as --shards, or leave --shards out"
        raise InputError(
            "these scores are of another build", file=folder, value=manifest.storage.name(""), remedy=remedy
        )
    clips = Clips(questions, manifest)
    found = [] if questions.direction == BACKWARD else browse(scores.blocks(), questions)
    queries = chosen(found, examples)
    return {
        "folder": folder,
        "model": scores.head.get("model"),
        "split": questions.split,
        "clips": len(questions.clips),
        "captions": questions.captions,
        "tasks": [
            (
                _words(task),
                [(name, *(f"{100 * row[key]:.2f}" for key in ("mean", "low", "high"))) for name, row in rows.items()],
            )
            for task, rows in tasks.items()
        ],
        "examples": [{"query": query, "clips": clips.of(query), "attention": None} for query in queries],
    }


def _shown(one: Stretch) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.begin))
    machines = ", ".join(f"{count} x {name}" for name, count in one.devices.items())
    return asdict(one) | {"when": when, "machines": machines, "took": show_hours(one.hours)}


def _about(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is trained, in a few words from the recipe."""
    found = []
    for section, key in (
        ("task", "name"),
        ("audio", "encoder"),
        ("text", "encoder"),
        ("head", "name"),
        ("loss", "name"),
    ):
        value = mapping_of(tree.get(section)).get(key)
        if value is not None:
            found.append((section, str(value)))
    data, optimizer = mapping_of(tree.get("data")), mapping_of(tree.get("optimizer"))
    for name, value in (("batch size", data.get("batch_size")), ("learning rate", optimizer.get("lr"))):
        if value is not None:
            found.append((name, str(value)))
    return [*found, ("seed", str(tree.get("seed", 0)))]


def _figure(name: str, value: float) -> str:
    measure = name.rpartition("/")[2]
    is_share = measure.startswith(_OF_ALL) or measure.endswith("accuracy")
    return f"{100 * value:.2f} %" if is_share and 0 <= value <= 1 else f"{value:.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", ", ")
