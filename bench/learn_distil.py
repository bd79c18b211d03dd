"""Measures three claims of Calvet and Toledano 2025 on real sound and real weights: distillation, ensembles, towers.

1. Does a model that learns from the averaged scores of three methods beat each of them, trained alone?
2. Does the mean of the scores of all three beat each of them?
3. Do frozen towers lose against towers whose upper blocks are trained?

Scenes of three to five recordings (folds 1 and 2 of ESC-50) and single recordings are trained on; captions of scenes of
fold 3 look for their scenes.  The towers are Whisper tiny's encoder and MiniLM, frozen, so that their vectors are
computed once for all runs.  Stage 1 trains the three methods.  Stage 2 trains each of them further, with all three as
teachers.  Its control is as much training without teachers: the difference is what the teachers do.

    python -m bench.learn_distil MODELS [--quick] [--seeds N] [--data FOLDER] [--out FOLDER]

MODELS holds whisper-tiny.en and all-MiniLM-L6-v2.  With ``--out`` an interrupted bench continues where it stopped, and
``--seeds 3`` after ``--seeds 1`` trains two more.  It needs the recordings that EARSHOT_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.scenes import Scene, draw_scenes, esc50, write_source
from sharding.audio.form import AudioForm
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.evaluation.scores.comparing import compare
from training.evaluation.scores.files import ScoreFile
from training.reproduce.carrying_out import Work, carry_out
from training.reproduce.plans import Plan, PlannedRun, System

TASK, MEASURES = "text_to_audio", ("mAP@10", "R@1", "R@10")
METHODS = {
    "dual": ("head={name: dual, dim: 256, project_text: true}",),
    "sentence": ("head={name: sentence-attention, dim: 256, heads: 8, audio: segments, text_pooling: encoder}",),
    "token": ("head={name: token-attention, dim: 256, heads: 8, audio: segments}",),
}
# The upper block of each tower is trained from where the frozen dual encoder stands, at a small rate.
TRAINED = (
    "data.stored=[]",
    "optimizer.freeze=[]",
    "optimizer.freeze_below={audio: 3, text: 5}",
    "optimizer.rates={'audio.*': 0.1, 'text.*': 0.03}",
)
ALONE, DISTILLED = "three alone", "three distilled"
QUESTIONS = {  # each: what is measured, and against what
    "distillation against stage 1": [(f"{name} distilled", name) for name in METHODS],
    "distillation against as much training": [(f"{name} distilled", f"{name} longer") for name in METHODS],
    "distillation against the best alone": [(f"{name} distilled", "best alone") for name in METHODS],
    "the ensemble against each": [(ALONE, name) for name in METHODS],
    "the ensemble of the distilled": [(DISTILLED, ALONE), (DISTILLED, "best distilled")],
    "trained towers against frozen ones": [("dual, upper blocks trained", "dual longer")],
}


@dataclass(frozen=True)
class Size:
    """How much is made and trained."""

    scenes: tuple[int, int]  # to train, to test
    clips: int
    epochs: int  # of stage 1, and of stage 2 again
    tower_epochs: int
    batch: int


FULL = Size((300, 120), 10_000, 30, 4, 32)
QUICK = Size((12, 8), 12, 1, 1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of whisper-tiny.en and all-MiniLM-L6-v2, as saved models")
    parser.add_argument("--quick", action="store_true", help="one epoch of a few sounds: shows that it runs")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the models and the order (3)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, help="keep the build and the runs here (default: a temporary folder)")
    args = parser.parse_args()
    if not (args.data / "audio/clips.csv").is_file():
        raise SystemExit(f"no recordings below {args.data}: EARSHOT_DATA names their folder")
    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        out, size = args.out or Path(temporary), QUICK if args.quick else FULL
        try:
            shards = prepare(args.data, out, size)
            shared = settings(args.models, size)
            work = Work(plan(size, out.resolve() / "stored"), out, str(shards), args.seeds, 0, shared, "sounds/test")
            systems = learn(work)
        except InputError as error:
            raise SystemExit(str(error)) from error
        print(f"processor minutes of this start: {(time.process_time() - began) / 60:.1f}")
        show(work, systems)


def prepare(data: Path, out: Path, size: Size) -> Path:
    """Draw, write and build the sounds below ``out``; the build."""
    shards = out / "shards"
    if (shards / "dataset.json").is_file():
        return shards
    rng = np.random.default_rng(0)
    recordings = esc50(data, (1, 2))
    clips = [recordings[number] for number in sorted(rng.permutation(len(recordings))[: size.clips])]
    drawn = {
        "train": [
            *draw_scenes(recordings, size.scenes[0], rng, "train"),
            *(Scene(f"clip{number:05d}", (clip,), together=False) for number, clip in enumerate(clips)),
        ],
        "test": draw_scenes(esc50(data, (3,)), size.scenes[1], rng, "test"),
    }
    write_source(out / "sounds", drawn, 5, rng)
    probe = ProbeSettings(form=AudioForm("wav"))  # it decodes fastest
    build(BuildSettings(sources={"sounds": str(out / "sounds")}, probe=probe), str(shards), LocalRunner(1))
    return shards


def settings(models: Path, size: Size) -> tuple[str, ...]:
    """The settings that all runs share: the recipe own_sounds with the published temperature and short segments."""
    return (
        f"audio.source={models.resolve() / 'whisper-tiny.en'}",
        f"text.source={models.resolve() / 'all-MiniLM-L6-v2'}",
        "audio.max_s=30.0",
        "data.crop_s=30.0",
        "data.train=[{split: sounds/train}]",
        f"data.batch_size={size.batch}",
        "data.workers=0",
        "validation.split=null",
        "log.tensorboard=false",
        "checkpoint.keep_last=1",
    )


def plan(size: Size, stored: Path) -> Plan:
    """The runs of a seed, and what is made of them; ``stored`` is where the runs share the vectors of frozen towers."""
    stage = ("audio.segment_s=2.0", "loss.tau=0.05", "optimizer.warmup_epochs=0.5", f"optimizer.epochs={size.epochs}")
    frozen = {name: (*stage, *head, f"data.stored_folder={stored}") for name, head in METHODS.items()}
    runs = {name: PlannedRun("own_sounds", changes) for name, changes in frozen.items()}
    for name, changes in frozen.items():
        runs[f"{name} longer"] = PlannedRun("own_sounds", changes, name)
        runs[f"{name} distilled"] = PlannedRun("own_sounds", changes, name, tuple(METHODS))
    more = (*stage, *METHODS["dual"], *TRAINED, f"optimizer.epochs={size.tower_epochs}")
    runs["dual, upper blocks trained"] = PlannedRun("own_sounds", more, "dual")
    systems = {name: System((name,), {}) for name in runs}
    systems |= {ALONE: System(tuple(METHODS), {})}
    systems |= {DISTILLED: System(tuple(f"{name} distilled" for name in METHODS), {})}
    return Plan("distillation, ensembles and towers", runs, systems)


def learn(work: Work) -> dict[str, Any]:
    """Carry out the plan; figures by system."""
    from training.engine.launch import ranks

    with ranks() as group:
        rows = carry_out(work, Manifest.open(work.shards), group, None)["rows"]
    return {name: row["ours"] for name, row in rows.items()}


def show(work: Work, systems: Mapping[str, Any]) -> None:
    """Figures of every system, the questions with paired differences, and these as the last line."""
    clips = len(ScoreFile.open(work.scores("dual", 0)).questions.clips)
    chance = sum(1 / rank for rank in range(1, 11)) / clips
    print(f"{work.seeds} seeds: mean (range). Chance of mAP@10 among {clips} scenes: {chance:.3f}")
    print(f"{'':28}" + "".join(f"{measure:>24}" for measure in MEASURES))
    for name, found in systems.items():
        cells = [found[TASK][measure] for measure in MEASURES]
        text = [f"{cell['mean']:.3f} ({cell['least']:.3f}-{cell['most']:.3f})" for cell in cells]
        print(f"{name:28}" + "".join(f"{cell:>24}" for cell in text))
    # the best on these very scenes, which makes it harder to beat
    kinds = {"best alone": list(METHODS), "best distilled": [f"{name} distilled" for name in METHODS]}
    best = {kind: max(names, key=lambda name: systems[name][TASK]["mAP@10"]["mean"]) for kind, names in kinds.items()}
    answers = {}
    for question, pairs in QUESTIONS.items():
        print(f"\n{question}: differences of mAP@10, mean of the seeds (95 % interval over scenes; of each seed)")
        for one, named in pairs:
            other = best.get(named, named)
            if one == other:
                continue
            found, each = difference(work, one, other)
            spread = ", ".join(f"{value:+.3f}" for value in each)
            interval = f"({found['low']:+.3f}, {found['high']:+.3f}; {spread}), p {found['p']:.3f}"
            print(f"  {one} - {other}: {found['mean']:+.3f} {interval}")
            answers[f"{one} - {other}"] = [found["mean"], found["low"], found["high"], found["p"]]
    print(json.dumps(answers))


def difference(work: Work, one: str, other: str) -> tuple[dict[str, float], list[float]]:
    """The paired difference of two systems in mAP@10, and that of every seed."""
    seeds = range(work.seeds)
    files = {name: [ScoreFile.open(work.scores(name, seed)) for seed in seeds] for name in (other, one)}

    def differs(some: Mapping[str, Sequence[ScoreFile]]) -> dict[str, float]:
        found: dict[str, float] = compare(some)["differences"][one][TASK]["mAP@10"]
        return found

    return differs(files), [differs({name: [each[seed]] for name, each in files.items()})["mean"] for seed in seeds]


if __name__ == "__main__":
    main()
