"""Measures whether the model learns from real sound: ESC-50, folds 1 and 2 to train and fold 3 to test.

Scenes last 15 to 30 s and hold three to five recordings, one after the other or at once.  Half of the scenes with one
event after the other are twins of another scene: they have the same kinds of event in another order.  Plain clips are
single recordings of 5 s.  Both are processed as a user's own sounds are: two generic sources, one build, a recipe, an
evaluation.  One model learns from both, from scratch.  With ``--pretrained`` models learn from plain clips alone, by
the recipe own_sounds, with published encoders.

    python -m bench.learn_esc [--quick] [--method NAME ...] [--seeds N ...] [--steps N] [--data FOLDER] [--out FOLDER]
        [--pretrained FOLDER]

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
from collections.abc import Mapping
from pathlib import Path

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
from training.data.captions import normalise
from training.engine.distributed import Group, LocalGroup
from training.evaluation.encoding import encode_texts, side_encoder
from training.evaluation.metrics import MEASURED
from training.evaluation.run import EvaluationSettings, evaluate
from training.evaluation.two_stage import two_stage_scores
from training.evaluation.whole_clips import BATCH, EncodedClips, encode_build
from training.models.hub import load
from training.models.retriever import Retriever

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

_TUNED = ("data.stored=[]", "optimizer.rates={'audio.*': 0.1, 'text.*': 0.03}", "optimizer.epochs=6")
_SEGMENTS = ("audio.pooled=last", "audio.segment_s=1.0")  # several vectors of a clip to attend to
_ATTENDING = ["head.dim=256", "head.heads=8", "head.audio=segments"]
# The same for pre-trained encoders: overrides of the recipe own_sounds, in which both encoders are frozen, on segments
# of 5 s.
PRETRAINED: dict[str, tuple[str, ...]] = {
    "frozen": (),
    "six-epochs": ("optimizer.epochs=6",),  # as long as those below that train the encoders too
    "recipe": ("audio.segment_s=10.0",),
    "published-head": ("audio.pooled=last", "head={name: dual, dim: 1024}", "loss.tau=0.05"),
    "captions-projected": ("head.project_text=true",),
    "last-layer": ("audio.pooled=last",),
    "first-token": ("text.pooling=first",),
    "published-temperature": ("loss.tau=0.05",),
    "short-segments": ("audio.segment_s=1.0",),
    "half-hop": ("audio.segment_s=2.0", "audio.hop_s=1.0"),
    "half-hop-projected": ("audio.segment_s=2.0", "audio.hop_s=1.0", "head.project_text=true"),
    "overlapping": ("audio.hop_s=2.5",),
    "attention-pooling": ("audio.segment_s=1.0", "head.audio_pooling=attention"),
    "masking": ("data.stored=[text]", "data.masking={time_masks: 1, freq_masks: 1}", "optimizer.epochs=12"),
    "top-block": (*_TUNED, "optimizer.freeze=[]", "optimizer.freeze_below={audio: 3, text: 5}"),
    "top-two-blocks": (*_TUNED, "optimizer.freeze=[]", "optimizer.freeze_below={audio: 2, text: 4}"),
    "tuned": (*_TUNED, "optimizer.freeze=[]"),
    "sentence-attention": (*_SEGMENTS, "head={name: sentence-attention}", *_ATTENDING, "head.text_pooling=encoder"),
    "token-attention": (*_SEGMENTS, "head={name: token-attention}", *_ATTENDING),
    # all 4,096 pairs of a batch, for 60 epochs as the others, would take an hour
    "co-attention": (
        *(*_SEGMENTS, "head={name: co-attention}", *_ATTENDING, "head.modules=1"),
        *("head.candidates=8", "optimizer.epochs=20"),
    ),
    "text-aware-pooling": (*_SEGMENTS, "head={name: text-aware-pooling, dim: 256, audio: segments}"),
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
        "--method",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(METHODS)}; with --pretrained {', '.join(PRETRAINED)} (default: the first of them)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="of the model and the order")
    parser.add_argument("--steps", type=int, metavar="N", help=f"instead of {FULL.steps}")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EARSHOT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, help="keep the build and the runs here (default: a temporary folder)")
    parser.add_argument(
        "--pretrained", type=Path, metavar="FOLDER", help="holds whisper-tiny.en and all-MiniLM-L6-v2, as saved models"
    )
    args = parser.parse_args()
    setup = Setup.of(args.pretrained)
    chosen = args.method or [next(iter(setup.methods))]
    if unknown := set(chosen) - setup.methods.keys():
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    if not (args.data / "audio/clips.csv").is_file():
        raise SystemExit(f"no recordings below {args.data}: EARSHOT_DATA names their folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out, size = args.out or Path(temporary), QUICK if args.quick else FULL
        if args.steps or (args.pretrained and not args.quick):
            size = dataclasses.replace(size, steps=args.steps or 0)
        try:
            sounds = prepare(args.data, out, size, setup)
            results = {
                method: [learn(method, seed, sounds, out, size, setup) for seed in args.seeds] for method in chosen
            }
        except InputError as error:
            raise SystemExit(str(error)) from error
    show(results)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is trained: overrides of a recipe for each method, on sources that are built into ``shards``."""

    recipe: str
    common: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]
    sources: tuple[str, ...]
    shards: str

    @classmethod
    def of(cls, pretrained: Path | None) -> Setup:
        if pretrained is None:
            return cls("demo", COMMON, METHODS, ("scenes", "clips"), "shards")
        towers = (f"audio.source={pretrained / 'whisper-tiny.en'}", f"text.source={pretrained / 'all-MiniLM-L6-v2'}")
        more = ("audio.segment_s=5.0", "data.workers=0", "validation.split=null", "log.tensorboard=false")
        return cls("own_sounds", (*towers, *more), PRETRAINED, ("clips",), "shards-clips")


def prepare(data: Path, out: Path, size: Size, setup: Setup) -> dict[str, dict[str, list[Scene]]]:
    """Draw, write and build the sources below ``out``; returns source to split to what it holds."""
    rng = np.random.default_rng(0)
    folds = {"train": esc50(data, (1, 2)), "test": esc50(data, (3,))}
    drawn: dict[str, dict[str, list[Scene]]] = {"scenes": {}, "clips": {}}
    for number, (split, recordings) in enumerate(folds.items()):
        drawn["scenes"][split] = draw_scenes(recordings, size.scenes[number], rng, split)
        chosen = sorted(rng.permutation(len(recordings))[: size.clips[number]])
        drawn["clips"][split] = [Scene(f"{split}{k:05d}", (recordings[k],), together=False) for k in chosen]
    drawn = {name: drawn[name] for name in setup.sources}
    if not (out / setup.shards / "dataset.json").is_file():
        for name, splits in drawn.items():
            write_source(out / name, splits, WORDINGS, rng)
        # WAV, because it decodes fastest: the time of the bench is for training
        sources = {name: str(out / name) for name in drawn}
        settings = BuildSettings(sources=sources, probe=ProbeSettings(form=AudioForm("wav")))
        build(settings, str(out / setup.shards), LocalRunner(2))
    return drawn


def learn(
    method: str, seed: int, sounds: dict[str, dict[str, list[Scene]]], out: Path, size: Size, setup: Setup
) -> dict[str, float]:
    """Train and test one model; returns figures, also kept below ``out``."""
    from training.engine.launch import ranks
    from training.run.loop import fit

    run = out / f"{method}-{size.steps}-{seed}"
    if (run / "figures.json").is_file():
        return dict(json.loads((run / "figures.json").read_text()))
    manifest = Manifest.open(out / setup.shards)
    length: tuple[str, ...] = ()
    if size.steps:
        length = (f"data.batch_size={size.batch}", f"optimizer.steps={size.steps}", f"checkpoint.every={size.steps}")
    recipe = load_recipe(setup.recipe, [*setup.common, *setup.methods[method], *length, f"seed={seed}"])
    if recipe.data.stored:  # the seeds share what frozen encoders give
        stored = dataclasses.replace(recipe.data, stored_folder=str(out / "stored"))
        recipe = dataclasses.replace(recipe, data=stored)
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
    for metric in MEASURED:
        figures |= {f"{name} {metric}": metrics[metric], f"{name} chance_{metric}": metrics[f"chance_{metric}"]}
    if name == "scenes":
        encoded = encode_build(retriever, manifest, split)
        figures["order"] = order_accuracy(retriever, manifest, split, scenes, encoded)
        figures["two stages"] = found_in_two_stages(retriever, manifest, encoded)
    return figures


def by_label(scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """One query for each label, with the files that it should find."""
    files: dict[str, dict[str, float]] = defaultdict(dict)
    for scene in scenes:
        files[f"The sound of {scene.labels[0]}."][f"{scene.name}.wav"] = 1.0
    return dict(files)


def scores_of(retriever: Retriever, texts: list[str], encoded: EncodedClips, candidates: int = 0) -> np.ndarray:
    """Every text's score for every clip ``[texts, clips]``; with candidates, exact for so many of each text alone."""
    data = retriever.recipe.data
    encoder = side_encoder(retriever.model, data)
    sides = encode_texts(encoder, [normalise(text, data) for text in texts], LocalGroup(), BATCH)
    text, audio = (tuple(tensor.to(retriever.device) for tensor in side) for side in (sides, encoded.sides))
    return np.asarray(two_stage_scores(retriever.model.head, text, audio, candidates).numpy())


def found_in_two_stages(retriever: Retriever, manifest: Manifest, encoded: EncodedClips) -> float:
    """The share of each caption's ten best clips that is found where only the first quarter is scored exactly."""
    rows = manifest.table.filter(pc.is_in(manifest.table["clip_id"], pa.array(encoded.clips)))
    texts = sorted({caption["text"] for captions in rows["captions"].to_pylist() for caption in captions})
    by_name = np.argsort(encoded.clips, kind="stable")  # equal scores are ordered by clip_id
    exact, staged = (
        by_name[np.argsort(-scores_of(retriever, texts, encoded, first)[:, by_name], axis=1, kind="stable")[:, :10]]
        for first in (0, max(10, len(encoded.clips) // 4))
    )
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(exact, staged, strict=True)]))


def order_accuracy(
    retriever: Retriever, manifest: Manifest, split: str, scenes: list[Scene], encoded: EncodedClips
) -> float:
    """How often a caption scores its own scene above the twin with the same events in another order; 0.5 by chance."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for scene in scenes:
        if not scene.together:
            groups[tuple(sorted(scene.labels))].append(f"{split}/{scene.name}")
    twins = {a: b for members in groups.values() if len(members) == 2 for a, b in (members, members[::-1])}
    rows = {row["clip_id"]: row["captions"] for row in manifest.table.select(["clip_id", "captions"]).to_pylist()}
    place = {clip: number for number, clip in enumerate(encoded.clips)}
    wins: list[float] = []
    for clip, twin in twins.items():
        if clip in rows and twin in rows:
            texts = sorted({caption["text"] for caption in rows[clip]})
            scores = scores_of(retriever, texts, encoded)
            wins += (scores[:, place[clip]] > scores[:, place[twin]]).astype(float).tolist()
    return float(np.mean(wins)) if wins else float("nan")


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """The table, mean and range over seeds, and the ratios as the last line."""
    columns: tuple[str, ...] = (
        "scenes R@10",
        "scenes mAP@10",
        "clips R@1",
        "clips mAP@10",
        "order",
        "two stages",
        "minutes",
    )
    first = next(iter(results.values()))[0]
    columns = tuple(column for column in columns if column in first)
    chance = {"order": 0.5, "two stages": 0.25}
    for column in columns:
        name, _, metric = column.partition(" ")
        if metric in MEASURED:
            chance[column] = first[f"{name} chance_{metric}"]
    print(f"{'':20}" + "".join(f"{column:>24}" for column in columns))
    print(f"{'chance':20}" + "".join(f"{chance[column]:24.3f}" for column in columns[:-1]))
    for method, runs in results.items():
        cells = [[run[column] for run in runs] for column in columns]
        text = [f"{np.mean(cell):.3f} ({min(cell):.3f}-{max(cell):.3f})" for cell in cells]
        print(f"{method:20}" + "".join(f"{cell:>24}" for cell in text))
    over = {
        f"{method} {name}": float(np.mean([run[f"{name} mAP@10"] / run[f"{name} chance_mAP@10"] for run in runs]))
        for method, runs in results.items()
        for name in ("scenes", "clips")
        if f"{name} mAP@10" in runs[0]
    }
    print(json.dumps(over))


if __name__ == "__main__":
    main()
