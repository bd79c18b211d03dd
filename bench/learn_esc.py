"""Measures whether the model learns from real sound: ESC-50, folds 1 and 2 to train and fold 3 to test.

Scenes last 15 to 30 s and hold three to five recordings, one after the other or at once.  Half of the scenes with one
event after the other are twins of another scene: they have the same kinds of event in another order.  Plain clips are
single recordings of 5 s.  Both are processed as a user's own sounds are: two generic sources, one build, a recipe, an
evaluation.  One model learns from both, from scratch.

    python -m bench.learn_esc [--quick] [--method NAME ...] [--seeds N ...] [--steps N] [--data FOLDER] [--out FOLDER]

With ``--out`` an interrupted bench continues where it stopped.  It needs the recordings that EARSHOT_DATA names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from bench.scenes import Scene, draw_scenes, esc50, write_source
from sharding.audio.form import AudioForm
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.probe.clip import ProbeSettings
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from training.config.loading import load_recipe
from training.engine.distributed import Group
from training.evaluation.encoding import side_encoder
from training.evaluation.run import EvaluationSettings, evaluate
from training.models.hub import load
from training.models.retriever import Retriever
from training.search.index import Index, build_index, search

WORDINGS = 5
COMMON = (
    "audio.max_s=30.0",
    "data.crop_s=30.0",
    "data.train=[{split: scenes/train}, {split: clips/train}]",
    "data.workers=0",
    "validation.split=null",
    "log.tensorboard=false",
)
_SCORED = ["head.dim=64", "head.heads=4", "head.audio=segments"]
# What is compared: overrides of the demo's recipe, which is the dual encoder with mean pooling of 1 s segments.
METHODS: dict[str, tuple[str, ...]] = {
    "dual": (),
    "attention-pooling": ("head.audio_pooling=attention",),
    "sentence-attention": ("head={name: sentence-attention}", *_SCORED, "head.text_pooling=mean"),
    "token-attention": ("head={name: token-attention}", *_SCORED),
    "co-attention": ("head={name: co-attention}", *_SCORED, "head.modules=1"),
    "co-attention-stacked": ("head={name: co-attention}", *_SCORED, "head.modules=2"),
    "co-attention-iterated": ("head={name: co-attention}", *_SCORED, "head.modules=2", "head.shared_weights=true"),
    "text-aware-pooling": (
        "head={name: text-aware-pooling, dim: 64, audio: segments, text_pooling: mean, dropout: 0.0}",
    ),
    "no-masking": ("data.masking={time_masks: 0, freq_masks: 0}",),
    "batch-of-16": ("data.batch_size=16",),
    "positives-by-clip": ("loss.positives=clip",),
    "lower-block-frozen": ("optimizer.freeze_below={audio: 1}",),
    "blocks-frozen": ("optimizer.freeze_below={audio: 2}",),
    "half-hop": ("audio.hop_s=0.5",),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is made and trained."""

    scenes: tuple[int, int]  # to train, to test
    clips: tuple[int, int]
    steps: int
    batch: int


FULL = Size((600, 120), (10_000, 10_000), 700, 32)
QUICK = Size((24, 12), (40, 30), 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps on a few sounds: shows that it runs")
    parser.add_argument(
        "--method", nargs="+", choices=METHODS, default=["dual"], metavar="NAME", help=", ".join(METHODS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="of the model and the order")
    parser.add_argument("--steps", type=int, metavar="N", help=f"instead of {FULL.steps}")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, help="keep the build and the runs here (default: a temporary folder)")
    args = parser.parse_args()
    if not (args.data / "audio/clips.csv").is_file():
        raise SystemExit(f"no recordings below {args.data}: EARSHOT_DATA names their folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out, size = args.out or Path(temporary), QUICK if args.quick else FULL
        size = dataclasses.replace(size, steps=args.steps or size.steps)
        try:
            sounds = prepare(args.data, out, size)
            results = {
                method: [learn(method, seed, sounds, out, size) for seed in args.seeds] for method in args.method
            }
        except InputError as error:
            raise SystemExit(str(error)) from error
    show(results)


def prepare(data: Path, out: Path, size: Size) -> dict[str, dict[str, list[Scene]]]:
    """Draw, write and build both sources below ``out``; returns source to split to what it holds."""
    rng = np.random.default_rng(0)
    folds = {"train": esc50(data, (1, 2)), "test": esc50(data, (3,))}
    drawn: dict[str, dict[str, list[Scene]]] = {"scenes": {}, "clips": {}}
    for number, (split, recordings) in enumerate(folds.items()):
        drawn["scenes"][split] = draw_scenes(recordings, size.scenes[number], rng, split)
        chosen = sorted(rng.permutation(len(recordings))[: size.clips[number]])
        drawn["clips"][split] = [Scene(f"{split}{k:05d}", (recordings[k],), together=False) for k in chosen]
    if not (out / "shards/dataset.json").is_file():
        for name, splits in drawn.items():
            write_source(out / name, splits, WORDINGS, rng)
        # WAV, because it decodes fastest: the time of the bench is for training
        sources = {name: str(out / name) for name in drawn}
        settings = BuildSettings(sources=sources, probe=ProbeSettings(form=AudioForm("wav")))
        build(settings, str(out / "shards"), LocalRunner(2))
    return drawn


def learn(method: str, seed: int, sounds: dict[str, dict[str, list[Scene]]], out: Path, size: Size) -> dict[str, float]:
    """Train and test one model; returns figures, also kept below ``out``."""
    from training.engine.launch import ranks  # imports DeepSpeed
    from training.run.loop import fit

    run = out / f"{method}-{size.steps}-{seed}"
    if (run / "figures.json").is_file():
        return dict(json.loads((run / "figures.json").read_text()))
    manifest = Manifest.open(out / "shards")
    length = (f"data.batch_size={size.batch}", f"optimizer.steps={size.steps}", f"checkpoint.every={size.steps}")
    recipe = load_recipe("demo", [*COMMON, *length, *METHODS[method], f"seed={seed}"])
    began = time.process_time()
    with ranks() as group:
        fit(recipe, manifest, run, group)
        figures = {"minutes": (time.process_time() - began) / 60}
        retriever = load(run / "export")
        for name, splits in sounds.items():
            figures |= test(retriever, manifest, name, splits["test"], group)
    (run / "figures.json").write_text(json.dumps(figures))
    return figures


def test(retriever: Retriever, manifest: Manifest, name: str, scenes: list[Scene], group: Group) -> dict[str, float]:
    """Retrieval among the test split: by own captions, by labels (clips), and between twins (scenes)."""
    split = f"{name}/test"
    device = next(retriever.model.parameters()).device
    relevance = by_label(scenes) if name == "clips" else None
    encoder = side_encoder(retriever.model, retriever.recipe.data, device)
    found = evaluate(encoder, manifest, EvaluationSettings(split, relevance=relevance), group)
    metrics = found["text_to_audio_multiple" if relevance else "text_to_audio"]
    figures: dict[str, float] = {}
    for metric in ("R@10", "mAP@10"):
        figures |= {f"{name} {metric}": metrics[metric], f"{name} chance_{metric}": metrics[f"chance_{metric}"]}
    if name == "scenes":
        index = build_index(retriever, manifest, split)
        figures["order"] = order_accuracy(retriever, manifest, split, scenes, index)
        figures["two stages"] = found_in_two_stages(retriever, manifest, split, index)
    return figures


def by_label(scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """A query for each label, and the files that it should find."""
    files: dict[str, dict[str, float]] = defaultdict(dict)
    for scene in scenes:
        files[f"The sound of {scene.labels[0]}."][f"{scene.name}.wav"] = 1.0
    return dict(files)


def found_in_two_stages(retriever: Retriever, manifest: Manifest, split: str, index: Index) -> float:
    """The share of each caption's ten best clips that is found where only the first quarter is scored exactly."""
    rows = manifest.table.filter(pc.is_in(manifest.table["clip_id"], pa.array(index.clips)))
    texts = sorted({caption["text"] for captions in rows["captions"].to_pylist() for caption in captions})
    exact, staged = (
        search(retriever, manifest, texts, split, 10, index, first) for first in (0, len(index.clips) // 4)
    )
    shares = [
        len({hit["clip_id"] for hit in exact[text]} & {hit["clip_id"] for hit in staged[text]}) / len(exact[text])
        for text in texts
    ]
    return float(np.mean(shares))


def order_accuracy(retriever: Retriever, manifest: Manifest, split: str, scenes: list[Scene], index: Index) -> float:
    """How often a caption scores its own scene above the twin with the same events in another order; 0.5 by chance."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for scene in scenes:
        if not scene.together:
            groups[tuple(sorted(scene.labels))].append(f"{split}/{scene.name}")
    twins = {a: b for members in groups.values() if len(members) == 2 for a, b in (members, members[::-1])}
    rows = {row["clip_id"]: row["captions"] for row in manifest.table.select(["clip_id", "captions"]).to_pylist()}
    wins = []
    for clip, twin in twins.items():
        if clip in rows and twin in rows:
            texts = [caption["text"] for caption in rows[clip]]
            for hits in search(retriever, manifest, texts, split, len(index.clips), index, 0).values():
                scores: dict[str, Any] = {hit["clip_id"]: hit["score"] for hit in hits}
                wins.append(float(scores[clip] > scores[twin]))
    return float(np.mean(wins)) if wins else float("nan")


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """The table, mean and range over seeds, and the ratios as the last line."""
    columns = ("scenes R@10", "scenes mAP@10", "clips mAP@10", "order", "two stages", "minutes")
    first = next(iter(results.values()))[0]
    print(f"{'':20}" + "".join(f"{column:>24}" for column in columns))
    chance = [first[f"{name} chance_{metric}"] for name, metric in (column.split() for column in columns[:3])]
    print(f"{'chance':20}" + "".join(f"{value:24.3f}" for value in [*chance, 0.5, 0.25]))
    for method, runs in results.items():
        cells = [[run[column] for run in runs] for column in columns]
        text = [f"{np.mean(cell):.3f} ({min(cell):.3f}-{max(cell):.3f})" for cell in cells]
        print(f"{method:20}" + "".join(f"{cell:>24}" for cell in text))
    over = {
        f"{method} {name}": float(np.mean([run[f"{name} mAP@10"] / run[f"{name} chance_mAP@10"] for run in runs]))
        for method, runs in results.items()
        for name in ("scenes", "clips")
    }
    print(json.dumps(over))


if __name__ == "__main__":
    main()
